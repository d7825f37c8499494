"""A client of the gateway reads the reply of an unbroken run, or a clean error, whatever its groups do on the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_edge.frames import AnswerSoFar, Fail
from glm_gateway.admission.metering import used_by
from glm_gateway.continuation.progress import Bounds
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.ladder.ladder import Rung
from glm_gateway.limits.tokens import Usage
from glm_gateway.proxy.pool import Pool
from glm_gateway.proxy.relay import BrokenReply, Outcome, Outgoing, Relay, Waits
from glm_gateway.routing.pick import Choice, Group, Request
from glm_gateway.routing.router import Router
from glm_gateway.surfaces.usage import Told
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
    serving,
)

DEADLINE_S = 20.0
BODY = b'{"model": "m"}'
NO_GROUP = Failure(503, "no group", "service_unavailable", code="no_group", retry_after_s=9)


@dataclass
class Places:
    """The groups of a test in order of their names, placed by the router with nothing known of any prompt."""

    groups: list[ScriptedGroup]
    retries: int = 3
    router: Router = field(default_factory=Router)
    directory: Directory = field(default_factory=Directory)
    failed: list[tuple[str, str]] = field(default_factory=list)
    eased: Easing = NO_EASING
    late: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.directory.replace([Member(Group(name=each.name), "127.0.0.1", each.port) for each in self.groups])

    async def place(self, avoid: frozenset[str]) -> Choice | Failure:
        groups = sorted(self.directory.groups, key=lambda group: group.name)
        free = [group for group in groups if group.name not in avoid][:1] or groups[:1]
        request = Request(key="k", prompt_tokens=5, avoid=avoid)
        return self.router.route(request, free, asyncio.get_running_loop().time()) or NO_GROUP

    @property
    def easing(self) -> Easing:
        return self.eased

    def pool(self, group: str) -> Pool:
        return self.directory.pool(group)

    def answers_late(self, group: str) -> bool:
        return group in self.late

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        self.router.succeed(choice, asyncio.get_running_loop().time(), prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.router.book.grow(choice.charge, num_tokens)

    def fail(self, choice: Choice, reason: str) -> None:
        self.failed.append((choice.group, reason))
        self.router.fail(choice, asyncio.get_running_loop().time())

    def end(self, choice: Choice) -> None:
        self.router.end(choice)

    def may_retry(self) -> bool:
        self.retries -= 1
        return self.retries >= 0


class Words:
    """Errors in the words of this test."""

    def body(self, failure: Failure) -> tuple[int, bytes]:
        return failure.status, b'{"error": "%s"}' % (failure.code or "").encode()

    def event(self, failure: Failure) -> bytes:
        return b"data: error %s\n\n" % (failure.code or "").encode()


@dataclass
class Client:
    """What a client has read."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_over: bool = False
    got_some: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status, self.headers = message["status"], message["headers"]
        else:
            assert self.status
            assert not self.is_over
            self.body += message["body"]
            self.is_over = not message["more_body"]
            self.got_some.set()


@contextlib.asynccontextmanager
async def world(*groups: ScriptedGroup, **fields: Any) -> AsyncIterator[tuple[Relay, Client, Places]]:
    async with serving(*groups):
        places, client = (
            Places(list(groups), **({"retries": fields.pop("retries")} if "retries" in fields else {})),
            Client(),
        )
        outgoing = Outgoing(
            method="POST",
            target="/v1/chat/completions",
            headers=[(b"content-type", b"application/json")],
            body=BODY,
            added=[(b"x-glm-gateway", b"token")],
            streams=fields.pop("streams", True),
        )
        relay = Relay(outgoing, places, Words(), client.send, **fields)
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield relay, client, places
        finally:
            places.directory.close()
        places.router.book.check()
        assert places.router.book.num_charges == 0


async def test_a_stream_in_frames_is_passed_on_as_it_is() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), comment(), said("one", 1), said("two", 2), closed()]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert client.body == b": waiting\n\ndata: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert (client.status, client.is_over) == (200, True)
    assert client.headers == [(b"content-type", b"text/event-stream"), (b"x-request-id", b"r")]
    assert relay.outcome is Outcome.FINISHED
    assert (relay.progress.num_tokens, relay.progress.closed and relay.progress.closed.num_cached_tokens) == (2, 1)
    assert group.asked[0].headers["x-glm-gateway"] == "token"
    assert group.asked[0].body == BODY


async def test_the_connection_to_a_group_is_used_again() -> None:
    reply = [FRAMES_HEAD, opened(), said("one", 1), closed()]
    group = ScriptedGroup("g0", [reply, reply])
    async with world(group) as (relay, client, places):
        await relay.run()
        again = Relay(relay.outgoing, places, Words(), Client().send)
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
    assert (relay.outcome, relay.progress.num_tokens) == (Outcome.FINISHED, 1)


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
    assert used_by(relay, Usage(prompt=9, answer=25, thinking=75)) == Usage(prompt=3, answer=1, thinking=3)
    assert used_by(relay, Usage(prompt=9, thinking=100)) == Usage(prompt=3, thinking=4)


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
    assert (relay.outcome, relay.progress.num_times, relay.progress.num_tokens) == (Outcome.FINISHED, 1, 4)
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
    assert relay.progress.num_tokens == 3


async def test_a_request_that_no_group_has_opened_is_asked_again_within_the_budget() -> None:
    first = ScriptedGroup("g0", [[DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("one", 1), closed()]])
    async with world(first, second) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: [DONE]\n\n"
    assert second.asked[0].continuation is None
    assert relay.progress.num_times == 0


async def test_without_a_budget_it_is_not_asked_again_and_the_error_is_clean() -> None:
    first, second = ScriptedGroup("g0", [[DIE]]), ScriptedGroup("g1", [])
    async with world(first, second, retries=0) as (relay, client, _):
        await relay.run()
    assert (client.status, client.body, second.asked) == (503, b'{"error": "group_lost"}', [])
    assert (b"retry-after", b"1") in client.headers
    assert relay.outcome is Outcome.FAILED


async def test_a_group_that_drains_is_left_for_another_one_and_is_not_blamed() -> None:
    first = ScriptedGroup("g0", [[plain(503, b"{}", b"retry-after: 7")]])
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
    assert relay.outcome is Outcome.REFUSED


async def test_a_group_of_another_revision_that_cannot_go_on_is_passed_over() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    second = ScriptedGroup("g1", [[plain(409, b"{}")]])
    third = ScriptedGroup("g2", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with world(first, second, third) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert [name for name, _ in places.failed] == ["g0"]


async def test_a_stream_that_nobody_can_go_on_with_ends_with_an_error_in_its_words() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    async with world(first, bounds=Bounds(max_times=0)) as (relay, client, _):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert client.is_over
    assert relay.outcome is Outcome.FAILED


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
    assert (relay.outcome, relay.progress.num_tokens) == (Outcome.FINISHED, 1)
    assert [name for name, _ in places.failed] == ["g0"]


async def test_a_group_that_goes_on_opens_its_reply_as_well() -> None:
    first = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), DIE]])
    second = ScriptedGroup("g1", [[FRAMES_HEAD, said("two", 2), closed()]])
    async with world(first, second) as (relay, client, places):
        await relay.run()
    assert client.body == b"data: one\n\ndata: error group_lost\n\n"
    assert [name for name, _ in places.failed] == ["g0", "g1"]


async def test_a_reply_that_fails_before_it_is_open_is_an_error_of_http() -> None:
    fail = Fail(status=500, message="m", type="t", code="broken")
    group = ScriptedGroup("g0", [[FRAMES_HEAD, chunk(fail, b"data: error\n\n") + b"0\r\n\r\n"]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert (client.status, client.body, client.is_over) == (500, b'{"error": "broken"}', True)
    assert relay.outcome is Outcome.FAILED


async def test_a_client_that_goes_away_ends_the_work_of_its_group() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), STALL]])
    async with world(group) as (relay, client, _):
        running = asyncio.create_task(relay.run())
        await client.got_some.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await group.was_cut.wait()
    assert relay.outcome is Outcome.CANCELLED


async def test_a_worker_from_before_is_passed_on_plainly() -> None:
    events = b"data: one\n\ndata: [DONE]\n\n"
    group = ScriptedGroup("g0", [[plain(200, events, b"content-type: text/event-stream")]])
    async with world(group) as (relay, client, _):
        await relay.run()
    assert (client.body, relay.outcome) == (events, Outcome.FINISHED)


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


def chunk_ids(*ids: int) -> bytes:
    return said("", *ids)


async def test_a_refusal_after_a_wait_is_an_event_of_the_stream_that_was_begun() -> None:
    refusal = b'{"error": {"message": "no such field", "type": "invalid_request_error", "code": "bad_field"}}'
    group = ScriptedGroup("g0", [[plain(400, refusal, b"content-type: application/json")]])
    async with world(group) as (relay, client, _):
        await relay.tell_waiting(b": waiting\n\n")
        await relay.run()
    assert client.body == b": waiting\n\ndata: error bad_field\n\n"
    assert (client.status, client.is_over) == (200, True)
    assert relay.outcome is Outcome.REFUSED
    assert used_by(relay, Usage(prompt=9, answer=9)) == Usage(), "a refusal costs nothing, whatever head it has"


async def test_a_plain_reply_says_what_it_used() -> None:
    body = b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3}}'
    group = ScriptedGroup("g0", [[plain(200, body, b"content-type: application/json")]])
    async with world(group, streams=False) as (relay, client, _):
        await relay.run()
    assert client.body == body
    assert relay.told == Told(prompt=7, cached=0, answer=3, reasoning=0)


async def test_a_group_is_told_what_eases_it_and_the_client_on_which_rung() -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), closed()]])
    async with world(group) as (relay, client, places):
        places.eased = Easing(Rung.SHORT_THOUGHTS, 512)
        await relay.run()
    assert group.asked[0].headers["x-glm-max-thinking"] == "512"
    assert (b"x-glm-overload", b"short-thoughts") in client.headers
