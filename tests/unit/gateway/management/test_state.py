"""GET /state says which file is in use, and what each group has."""

from glm_edge.version import VERSION
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.management.standing import Standing
from glm_gateway.management.state import state
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group, Request


async def test_all_of_it_is_told() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1), Member(Group(name="g1", is_ready=False), "127.0.0.1", 2)])
    model.hear_reply("g1", in_frames=False)
    choice = model.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    told = state([model], Standing("d", "it is bad"), num_keys=3, num_running=1, num_cut=2)
    assert told == {
        "version": VERSION,
        "config_digest": "d",
        "config_fault": "it is bad",
        "keys": 3,
        "running": 1,
        "cut": 2,
        "models": {
            "chat": {
                "groups": {
                    "g0": {"ready": True, "leaving": False, "plain": False, "in_flight": 1},
                    "g1": {"ready": False, "leaving": False, "plain": True, "in_flight": 0},
                }
            }
        },
    }


async def test_a_group_that_is_gone_is_told_as_long_as_it_has_requests() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    choice = model.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    model.replace([])
    groups = state([model], Standing(), num_keys=None, num_running=1)["models"]["chat"]["groups"]
    assert groups == {"g0": {"ready": False, "leaving": True, "plain": False, "in_flight": 1}}
    model.end(choice)
    assert state([model], Standing(), num_keys=None, num_running=0)["models"]["chat"]["groups"] == {}
