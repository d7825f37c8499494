"""Every series is there from the start, and no label comes from a client."""

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.metrics.telemetry import Telemetry
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group


async def test_every_series_is_there_before_the_first_request() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    told = Telemetry([model]).exposition().decode()
    for line in (
        'glm_gateway_requests_total{api="anthropic",model="chat",outcome="failed"} 0.0',
        'glm_gateway_continuations_total{model="chat"} 0.0',
        'glm_gateway_picks_total{model="chat",why="prefix"} 0.0',
        'glm_gateway_time_to_first_token_seconds_count{model="chat"} 0.0',
        'glm_gateway_requests_held{model="chat"} 0.0',
        'glm_gateway_oldest_held_seconds{model="chat"} 0.0',
        'glm_gateway_groups_ready{model="chat"} 1.0',
        'glm_gateway_in_flight_tokens{group="g0",model="chat"} 0.0',
    ):
        assert line in told


async def test_a_model_that_comes_has_all_its_series_and_one_that_ended_has_none() -> None:
    found = Telemetry([Model("chat", Directory())])
    found.add(Model("other", Directory()))
    assert 'glm_gateway_requests_total{api="openai",model="other",outcome="failed"} 0.0' in found.exposition().decode()
    found.drop("chat")
    assert 'model="chat"' not in found.exposition().decode()
    assert 'model="other"' in found.exposition().decode()


async def test_groups_that_answer_plainly_are_counted() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1), Member(Group(name="g1"), "127.0.0.1", 2)])
    model.hear_reply("g0", in_frames=False)
    model.hear_reply("g1", in_frames=True)
    assert 'glm_gateway_groups_plain{model="chat"} 1.0' in Telemetry([model]).exposition().decode()


def test_what_a_drain_cut_and_whether_the_file_is_in_use_are_told() -> None:
    found = Telemetry([])
    found.cut(3)
    found.tell_current(is_current=False)
    told = found.exposition().decode()
    assert "glm_gateway_requests_cut_total 3.0" in told
    assert "glm_gateway_config_is_current 0.0" in told
