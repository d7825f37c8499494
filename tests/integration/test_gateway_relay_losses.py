"""A client of the gateway reads the reply of an unbroken run, or a clean error, whatever its groups do on the way."""

import asyncio

import pytest

from glm_edge.frames import AnswerSoFar, Fail
from glm_gateway.continuation.progress import Bounds
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.outgoing import Waits
from integration.free_ports import free_port
from integration.relay_world import BODY, world
from integration.scripted_groups import (
    DIE,
    FRAMES_HEAD,
    STALL,
    ScriptedGroup,
    chunk,
    closed,
    comment,
    opened,
    plain,
    said,
)


@pytest.mark.parametrize(
    "end",
    [
        DIE,
        chunk(Fail(status=503, message="m", type="t", code="generation_lost", can_continue=True), b"x") + b"0\r\n\r\n",
    ],
)
async def test_a_stream_whose_group_is_lost_goes_on_at_another_one(end: object) -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), said("two", 2, 3), end]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("three", 4), closed()]])
    async with world(first, second) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: three\n\ndata: [DONE]\n\n"
    (asked,) = second.asked
    assert asked.continuation is not None
    assert asked.continuation.answers == [AnswerSoFar(ids=[1, 2, 3])]
    assert (asked.continuation.id, asked.continuation.state, asked.body) == ("c1", b"two", BODY)
    assert (relay.result.outcome, relay.result.progress.num_times, relay.result.progress.num_tokens) == (
        Outcome.FINISHED,
        1,
        4,
    )
    assert relay.result.progress.num_taken_up == 1
    assert [name for name, _ in places.failed] == ["g0"]


async def test_an_event_of_which_half_has_come_is_not_told_before_the_loss() -> None:
    torn = said("two", 2)[:-5]
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), torn, DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    continuation = second.asked[0].continuation
    assert continuation is not None
    assert continuation.answers == [AnswerSoFar(ids=[1])]


@pytest.mark.parametrize(
    "end",
    [
        chunk(Fail(status=503, message="m", type="t", code="generation_lost", can_continue=True), b"x"),
        b"10\r\n" + b"\xff" * 16 + b"\r\n",
    ],
    ids=["a group that gives up", "nonsense"],
)
async def test_what_came_in_one_piece_with_a_loss_is_told_once_and_not_asked_for_again(end: bytes) -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD + opened() + said("one", 1) + said("two", 2) + end, STALL]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("three", 3), closed()]])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: three\n\ndata: [DONE]\n\n"
    continuation = second.asked[0].continuation
    assert continuation is not None
    assert continuation.answers == [AnswerSoFar(ids=[1, 2])]


async def test_what_came_in_one_piece_with_a_loss_is_told_before_the_error() -> None:
    nonsense = b"10\r\n" + b"\xff" * 16 + b"\r\n"
    group = ScriptedGroup("g0", [[FRAMES_HEAD + opened() + said("one", 1) + nonsense, STALL]])
    async with world(group, bounds=Bounds(max_times=0)) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"


async def test_a_whole_reply_goes_on_as_well_and_comes_with_its_length() -> None:
    headers = [("content-type", "application/json")]
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(headers=headers), chunk_ids(1, 2), DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(headers=headers), chunk_ids(3), closed(b'{"text": "x"}')]])
    async with world(first, second, streams=False) as (relay, client, _):
        await relay.run()
    assert client.body == b'{"text": "x"}'
    assert client.headers == [(b"content-type", b"application/json"), (b"content-length", b"13")]
    assert relay.result.progress.num_tokens == 3


async def test_a_request_that_no_group_has_opened_is_asked_again_within_the_budget() -> None:
    first = ScriptedGroup("g0", [[DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("one", 1), closed()]])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: [DONE]\n\n"
    assert second.asked[0].continuation is None
    assert relay.result.progress.num_times == 0


async def test_without_a_budget_it_is_not_asked_again_and_the_error_is_clean() -> None:
    first, second = ScriptedGroup("g0", [[DIE]]), ScriptedGroup("g1", [])
    async with world(first, second, retries=0) as (relay, client, _):
        await relay.run()
    assert (client.status, client.body, second.asked) == (503, b'{"error": "group_lost"}', [])
    assert (b"retry-after", b"1") in client.headers
    assert relay.result.outcome is Outcome.FAILED


@pytest.mark.parametrize("status", [503, 529])  # as OpenAI's and as Anthropic's surface say it
async def test_a_group_that_drains_is_left_for_another_one_and_is_not_blamed(status: int) -> None:
    first = ScriptedGroup("g0", [[plain(status, b"{}", b"retry-after: 7")]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("one", 1), closed()]])
    async with world(first, second) as (relay, client, places):
        await relay.run()
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert places.failed == []


async def test_where_all_groups_are_busy_their_retry_after_is_told() -> None:
    groups = [ScriptedGroup(f"g{n}", [[plain(503, b"{}", b"retry-after: 7")]]) for n in range(2)]
    async with world(*groups) as (relay, client, places):
        await relay.run()
    assert (client.status, client.body) == (503, b'{"error": "overloaded"}')
    assert (b"retry-after", b"7") in client.headers
    assert [len(group.asked) for group in groups] == [1, 1]
    assert places.failed == []


async def test_a_refusal_of_a_group_is_the_clients_and_never_tried_elsewhere() -> None:
    first = ScriptedGroup("g0", [[plain(400, b'{"error": "n"}', b"content-type: application/json")]])
    second = ScriptedGroup("g1", [])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert (client.status, client.body, second.asked) == (400, b'{"error": "n"}', [])
    assert relay.result.outcome is Outcome.REFUSED


@pytest.mark.parametrize("status", [409, 503, 529], ids=["of another revision", "busy", "busy, as Anthropic says it"])
async def test_a_group_that_cannot_go_on_is_passed_over(status: int) -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    second = ScriptedGroup("g1", [[plain(status, b"{}")]])
    third = ScriptedGroup("g2", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second, third) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert [name for name, _ in places.failed] == ["g0"]


async def test_a_group_that_cannot_be_reached_uses_up_no_continuation() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    second = ScriptedGroup("g1", [])
    third = ScriptedGroup("g2", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second, third, bounds=Bounds(max_times=1)) as (relay, client, places):
        places.move("g1", free_port())
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert [name for name, _ in places.failed] == ["g0", "g1"]
    assert relay.result.progress.num_times == 1


async def test_where_no_group_can_be_reached_the_end_is_told_soon() -> None:
    may_die = asyncio.Event()
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), may_die, DIE]])
    second = ScriptedGroup("g1", [])
    async with world(first, second) as (relay, client, places):
        running = asyncio.create_task(relay.run())
        await client.got_some.wait()
        for name in ("g0", "g1"):
            places.move(name, free_port())
        may_die.set()
        await running
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert second.asked == []


async def test_a_stream_that_nobody_can_go_on_with_ends_with_an_error_in_its_words() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    async with world(first, bounds=Bounds(max_times=0)) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert client.is_over
    assert relay.result.outcome is Outcome.FAILED


async def test_a_request_that_kills_groups_kills_two_and_no_more() -> None:
    groups = [
        ScriptedGroup(f"g{n}", [[FRAMES_HEAD, opened(), *([said("one", 1)] if n == 0 else []), DIE]]) for n in range(4)
    ]
    async with world(*groups, bounds=Bounds(max_times=3)) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert [len(group.asked) for group in groups] == [1, 1, 0, 0]


async def test_a_group_that_falls_silent_is_lost() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), STALL]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second, waits=Waits(silence_s=0.2)) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert "silent" in places.failed[0][1]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_group_that_takes_a_request_and_says_nothing_is_left_for_another_one(streams: bool) -> None:
    first = ScriptedGroup("g0", [[STALL]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second, streams=streams, waits=Waits(head_s=0.2)) as (relay, client, places):
        await relay.run()
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert places.failed == [("g0", "it did not answer within 0.2 s")]


async def test_a_group_that_answers_late_has_the_time_to_write_a_whole_reply() -> None:
    group = ScriptedGroup("g0", [[STALL]])
    async with world(group, streams=False, retries=0, waits=Waits(head_s=0.1, whole_s=0.3)) as (relay, client, places):
        places.late = frozenset(("g0",))
        await relay.run()
    assert places.failed == [("g0", "it did not answer within 0.3 s")]
    assert client.status == 503


async def test_a_group_that_says_nonsense_in_place_of_frames_is_lost() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), b"4\r\nabcd\r\n", b"4\r\nefgh\r\n"]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("first", [said("one", 1), comment(), closed()], ids=["tokens", "idle", "close"])
async def test_a_group_that_speaks_before_its_reply_is_open_is_lost(first: bytes, streams: bool) -> None:
    bad = ScriptedGroup("g0", [[FRAMES_HEAD, first, STALL]])
    good = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(bad, good, streams=streams) as (relay, client, places):
        await relay.run()
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert (b"content-type", b"text/event-stream") in client.headers
    assert good.asked[0].continuation is None
    assert (relay.result.outcome, relay.result.progress.num_tokens) == (Outcome.FINISHED, 1)
    assert [name for name, _ in places.failed] == ["g0"]


async def test_a_group_that_goes_on_opens_its_reply_as_well() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, said("two", 2), closed()]])
    async with world(first, second) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert [name for name, _ in places.failed] == ["g0", "g1"]


def chunk_ids(*ids: int) -> bytes:
    return said("", *ids)
