"""A client of the gateway reads what a group writes, whole events only, or why there is none."""

import asyncio
import contextlib
from typing import Any

import pytest

from glm_edge.frames import Fail
from glm_gateway.admission.used import used_by
from glm_gateway.continuation.progress import Bounds
from glm_gateway.ladder.easing import Easing
from glm_gateway.ladder.ladder import Rung
from glm_gateway.limits.tokens import Usage
from glm_gateway.proxy.client import BrokenReply
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.surfaces.usage import Told
from integration.relay_world import BODY, Client, world
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


async def test_a_stream_in_frames_is_passed_on_as_it_is() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), comment(), said("one", 1), said("two", 2), closed()]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert client.body == b": waiting\n\ndata: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert (client.status, client.is_over) == (200, True)
    assert client.headers == [(b"content-type", b"text/event-stream"), (b"x-request-id", b"r")]
    assert relay.result.outcome is Outcome.FINISHED
    progress = relay.result.progress
    assert (progress.num_tokens, progress.closed and progress.closed.num_cached_tokens) == (2, 1)
    assert group.asked[0].headers["x-glm-gateway"] == "token"
    assert group.asked[0].body == BODY


async def test_the_connection_to_a_group_is_used_again() -> None:
    reply = [FRAMES_HEAD, opened(), said("one", 1), closed()]
    group = ScriptedGroup("g0", [reply, reply])
    async with world(group) as (relay, client, places):
        await relay.run()
        again = Relay(relay.outgoing, places, relay.telling, Client().send)
        await again.run()
        assert len(places.directory.pool("g0")._idle) == 1
    assert len(group._tasks) == 1
    assert client.is_over


async def test_what_comes_behind_the_end_of_a_reply_is_told_to_nobody() -> None:
    end = closed().removesuffix(b"0\r\n\r\n")
    group = ScriptedGroup("g0", [[FRAMES_HEAD + opened() + said("one", 1) + end + said("late", 2) + closed()]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: [DONE]\n\n"
    assert (relay.result.outcome, relay.result.progress.num_tokens) == (Outcome.FINISHED, 1)


async def test_the_connection_to_a_group_that_has_left_is_not_kept() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), closed(), STALL]])
    async with world(group) as (relay, client, places):
        pool = places.directory.pool("g0")
        running = asyncio.create_task(relay.run())
        await client.got_some.wait()
        places.directory.replace([])
        await running
        assert pool._idle == []
        await group.was_cut.wait()


async def test_what_a_reply_used_that_broke_off_is_split_as_it_was_reserved() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1, 2, 3, 4), DIE]])
    async with world(group, bounds=Bounds(max_times=0)) as (relay, _, _):
        await relay.run()
    assert used_by(relay.result, Usage(prompt=9, answer=25, thinking=75)) == Usage(prompt=3, answer=1, thinking=3)
    assert used_by(relay.result, Usage(prompt=9, thinking=100)) == Usage(prompt=3, thinking=4)


async def test_frames_that_come_at_once_are_told_at_once() -> None:
    group = ScriptedGroup(
        "g0", [[FRAMES_HEAD + opened() + said("one", 1) + said("two", 2), said("three", 3), closed()]]
    )
    async with world(group) as (relay, client, _):
        told: list[bytes] = []
        send = client.send

        async def note(message: dict[str, Any]) -> None:
            told.append(message.get("body", b""))
            await send(message)

        relay._client.send = note
        await relay.run()
    assert b"data: one\n\ndata: two\n\n" in told[1]
    assert client.body == b"data: one\n\ndata: two\n\ndata: three\n\ndata: [DONE]\n\n"


async def test_a_reply_that_fails_before_it_is_open_is_an_error_of_http() -> None:
    fail = Fail(status=500, message="m", type="t", code="broken")
    group = ScriptedGroup("g0", [[FRAMES_HEAD, chunk(fail, b"data: error\n\n") + b"0\r\n\r\n"]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert (client.status, client.body, client.is_over) == (500, b'{"error": "broken"}', True)
    assert relay.result.outcome is Outcome.FAILED


async def test_a_client_that_goes_away_ends_the_work_of_its_group() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), STALL]])
    async with world(group) as (relay, client, _):
        running = asyncio.create_task(relay.run())
        await client.got_some.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await group.was_cut.wait()
    assert relay.result.outcome is Outcome.CANCELLED


async def test_a_worker_from_before_is_passed_on_plainly() -> None:
    events = b"data: one\n\ndata: [DONE]\n\n"
    group = ScriptedGroup("g0", [[plain(200, events, b"content-type: text/event-stream")]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert (client.body, relay.result.outcome) == (events, Outcome.FINISHED)


async def test_a_plain_stream_that_breaks_off_ends_with_an_error_and_is_not_begun_anew() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    first = ScriptedGroup("g0", [[head, b"b\r\ndata: one\n\n\r\n", DIE]])
    second = ScriptedGroup("g1", [])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert second.asked == []


async def test_a_plain_whole_reply_that_breaks_off_is_told_by_the_end_of_the_connection() -> None:
    group = ScriptedGroup("g0", [[plain(200, b'{"text": "whole"}')[:-4], DIE]])
    async with world(group, streams=False) as (relay, client, _):
        with pytest.raises(BrokenReply):
            await relay.run()
    assert not client.is_over


async def test_where_there_is_no_group_the_client_is_told_when_to_come_again() -> None:
    async with world() as (relay, client, _):
        await relay.run()
    assert (client.status, client.body) == (503, b'{"error": "no_group"}')
    assert (b"retry-after", b"9") in client.headers


async def test_a_refusal_after_a_wait_is_an_event_of_the_stream_that_was_begun() -> None:
    refusal = b'{"error": {"message": "no such field", "type": "invalid_request_error", "code": "bad_field"}}'
    group = ScriptedGroup("g0", [[plain(400, refusal, b"content-type: application/json")]])
    async with world(group) as (relay, client, _):
        await relay.tell_waiting(b": waiting\n\n")
        await relay.run()
    assert client.body == b": waiting\n\ndata: error bad_field\n\n"
    assert (client.status, client.is_over) == (200, True)
    assert relay.result.outcome is Outcome.REFUSED
    assert used_by(relay.result, Usage(prompt=9, answer=9)) == Usage(), "a refusal costs nothing, whatever head it has"


async def test_a_plain_reply_says_what_it_used() -> None:
    body = b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3}}'
    group = ScriptedGroup("g0", [[plain(200, body, b"content-type: application/json")]])
    async with world(group, streams=False) as (relay, client, _):
        await relay.run()
    assert client.body == body
    assert relay.result.told == Told(prompt=7, cached=0, answer=3, reasoning=0)


async def test_a_group_is_told_what_eases_it_and_the_client_on_which_rung() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), closed()]])
    async with world(group) as (relay, client, places):
        places.eased = Easing(Rung.SHORT_THOUGHTS, 512)
        await relay.run()
    assert group.asked[0].headers["x-glm-max-thinking"] == "512"
    assert (b"x-glm-overload", b"short-thoughts") in client.headers
