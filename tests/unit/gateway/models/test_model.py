"""What a model knows of its groups and of who asked for it last."""

import asyncio

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Bounds
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group, Request


def model(*names: str) -> Model:
    found = Model("chat", Directory())
    found.replace([Member(Group(name=name), "127.0.0.1", 1) for name in names])
    return found


async def test_a_group_is_plain_when_it_answers_without_frames_and_never_did_with_them() -> None:
    found = model("g0", "g1")
    assert not found.is_plain("g0")
    found.hear_reply("g0", in_frames=False)
    assert (found.is_plain("g0"), found.is_plain("g1")) == (True, False)
    found.hear_reply("g0", in_frames=True)
    found.hear_reply("g0", in_frames=False)
    assert not found.is_plain("g0")


async def test_a_group_answers_late_where_it_is_plain_or_an_older_one_that_has_not_answered_yet() -> None:
    found = Model("chat", Directory())
    groups = [Member(Group(name="g0"), "127.0.0.1", 1), Member(Group(name="g1"), "127.0.0.1", 1, tells_no_load=True)]
    found.replace(groups)
    assert (found.answers_late("g0"), found.answers_late("g1")) == (False, True)
    found.hear_reply("g0", in_frames=False)
    found.hear_reply("g1", in_frames=True)
    assert (found.answers_late("g0"), found.answers_late("g1")) == (True, False)
    assert not found.answers_late("of another model")


async def test_a_group_that_comes_back_is_not_what_it_was_before() -> None:
    found = model("g0")
    found.hear_reply("g0", in_frames=False)
    found.replace([])
    found.hear_reply("g0", in_frames=False)
    found.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    assert not found.is_plain("g0")


async def test_requests_of_a_group_that_is_gone_are_still_counted_until_they_end() -> None:
    found = model("g0")
    choice = found.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    found.replace([])
    assert found.in_flight == {"g0": 1}
    found.end(choice)
    assert found.in_flight == {}


async def test_who_would_wait_for_a_slot_goes_where_one_is_free() -> None:
    found = model("g0", "g1")
    for name in ("g0", "g1"):
        found.hear_running(name, 4)
    found._lasts_s = 2.0  # what requests took of late
    large = found.route(Request(key="large", prompt_tokens=4_000))
    assert large is not None
    found.router.succeed(large, asyncio.get_running_loop().time(), 4_000)
    found.router.book.grow(large.charge, 1)
    small = [found.route(Request(key=str(number), prompt_tokens=20)) for number in range(5)]
    groups = [choice.group for choice in small if choice is not None]
    assert len({*groups[:4]} - {large.group}) == 1, "tokens make the load, while there are slots"
    assert groups[4] == large.group


async def test_how_long_requests_last_is_measured_from_their_place_to_their_end() -> None:
    found = model("g0")
    choice = found.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    assert found._lasts_s == 0.0
    found.end(choice)
    assert found._lasts_s > 0.0
    assert found._began_s == {}


async def test_whoever_listens_hears_of_each_request_that_comes_and_goes() -> None:
    found, heard = model("g0"), list[float | None]()
    found.changed = lambda: heard.append(found.active_s)
    choice = found.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    found.end(choice)
    first, last = heard
    assert first is not None
    assert last is not None
    assert first <= last <= asyncio.get_running_loop().time()


async def test_new_bounds_hold_for_who_comes_next() -> None:
    found = model()
    found.bound(Bounds(max_held=7))
    assert found.room.bounds.max_held == found.bounds.max_held == 7


async def test_the_default_mode_is_what_the_last_reply_that_had_it_said() -> None:
    found = model()
    for header, mode in (("enabled; by=template", "enabled"), ("disabled; by=request", "enabled"), ("", "enabled")):
        found.hear_thinking(header)
        assert found.default_mode == mode
    found.hear_thinking("disabled; by=policy")
    assert found.default_mode == "disabled"
