"""One request from its admission to its end: placed, sent, its reply passed on, and saved where its group is lost.

A reply in frames is passed on frame by frame, so its client never has half an event. When its group is lost, another
one goes on from the ids that the client has seen; what was not opened is asked again, within the budget of retries. A
plain reply, of a worker from before, is passed on as it comes, and can be asked again only before its first byte.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from glm_edge.errors.failure import Failure
from glm_edge.frames import (
    CONTINUED_TYPE,
    FRAMES_HEADER,
    FRAMES_TYPE,
    BrokenFrames,
    Close,
    Continuation,
    Fail,
    Frame,
    FrameReader,
    Meaning,
    Open,
    Tokens,
    continued,
)
from glm_gateway.continuation.progress import Again, Bounds, GiveUp, GoOn, Progress
from glm_gateway.ladder.easing import Easing
from glm_gateway.proxy.client import Added, BrokenReply, Client, Send, Telling
from glm_gateway.proxy.connection import Connection, Head, UpstreamLost
from glm_gateway.proxy.heads import RawHeaders, request_head
from glm_gateway.proxy.outside import TO_THE_CLIENT, Outside, Reading, lost_outside
from glm_gateway.proxy.plain import AsItIs, pass_plain, read_away
from glm_gateway.proxy.pool import Pool
from glm_gateway.proxy.watching import Unwatched, Watching
from glm_gateway.routing.pick import Choice
from glm_gateway.surfaces.usage import Stored, Told

__all__ = ["BrokenReply", "Outcome", "Outgoing", "Placing", "Relay", "Waits"]

MAX_ASKED = 4
"""Groups that one request is sent to before any of them has said a word of its reply."""

EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that know it pass events on as they come
)

_BUSY = (502, 503)  # a group that drains, starts again or is full: another one may not be
_UNFIT = 409  # a group that cannot go on with a reply, as of another revision


class Placing(Protocol):
    """Where requests go. Every choice of a group is ended. easing: what overload does to this request.

    answers_late: whether a group may say nothing before it has written a whole reply, as one without frames.
    """

    @property
    def easing(self) -> Easing: ...
    async def place(self, avoid: frozenset[str]) -> Choice | Outside | Failure: ...
    def pool(self, group: str) -> Pool: ...
    def answers_late(self, group: str) -> bool: ...
    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None: ...
    def grow(self, choice: Choice, num_tokens: int) -> None: ...
    def fail(self, choice: Choice, reason: str) -> None: ...
    def end(self, choice: Choice) -> None: ...
    def may_retry(self) -> bool: ...


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A request as it goes to groups. added: headers of ours. streams: its client reads events.

    target: the path with its query.
    """

    method: str
    target: str
    headers: RawHeaders
    body: bytes
    added: Added
    streams: bool


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long a group may be silent, in seconds."""

    head_s: float = 30.0  # until the head of a stream, or of frames, which comes after a second at the latest
    whole_s: float = 3600.0  # until the head of a whole reply without frames: it is written by then
    silence_s: float = 45.0  # in the middle of a reply: three signs of life that did not come
    outside_s: float = 300.0  # a server outside, which gives no signs of life while it thinks
    last_s: float = 1.0  # for the end of a reply behind its last frame


class _Lost(Exception):
    """The group that writes is gone, silent or broken, or says that another one can go on."""


class _Declined(Exception):
    """The group did not take the request, and nothing is wrong with it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Refused(Exception):
    """The group has counted the prompt, and it is more than may be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def _nothing() -> None: ...


async def _let_in(num_prompt_tokens: int) -> Failure | None:  # noqa: ARG001 - of `opening`
    return None


@dataclass
class Relay:
    """Relays one request. reply_added: headers of ours to the client. watching: told of each frame.

    ended: called when it is known how the reply ends, before its client knows: what the request held is free by the
    time that the client asks for more. Once or more.

    opening: asked once, by the prompt's tokens, when the first group opens the reply and before its client hears of
    that; what it returns is told in place of the reply, and the group's work ends.

    outcome, status, group, failure: how it stands, or ended; CANCELLED until it has. first_token_at: on the loop's
    clock.
    told: what a reply that is no frames says that it used. plain_status: of such a reply; 0: there is none.
    """

    outgoing: Outgoing
    placing: Placing
    telling: Telling
    send: Send
    bounds: Bounds = field(default_factory=Bounds)
    waits: Waits = field(default_factory=Waits)
    reply_added: Added = ()
    watching: Watching = field(default_factory=Unwatched)
    ended: Callable[[], Awaitable[None]] = _nothing
    opening: Callable[[int], Awaitable[Failure | None]] = _let_in
    outcome: Outcome = Outcome.CANCELLED
    group: str = ""
    failure: Failure | None = None
    first_token_at: float | None = None
    told: Told | None = None
    plain_status: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.progress = Progress(self.bounds, began_s=self._loop.time())
        self._client = Client(self.send, self.telling, self._reply_added, streams=self.outgoing.streams)
        self._untold: list[bytes] = []  # of frames that are taken
        self._is_open = False  # the reply of the group that writes
        self._as_it_is: AsItIs | None = None
        self.is_plain = False  # what the client has begun to read is no frames

    @property
    def status(self) -> int:
        """Of the reply; 0: it has none yet."""
        return self._client.status

    @property
    def stored(self) -> Stored | None:
        """What the group says of a response that it keeps; None: the reply is about none."""
        return None if self._as_it_is is None else self._as_it_is.stored

    async def run(self) -> None:
        """Relay to the end; the client has been told how it ended. Raises BrokenReply, and what `send` raises."""
        continuation: Continuation | None = None
        lost: set[str] = set()
        declined: dict[str, Failure] = {}
        for _ in range(MAX_ASKED + self.bounds.max_times):
            choice = await self.placing.place(frozenset(lost.union(declined)))
            if isinstance(choice, Failure):
                await self._fail(choice)
                return
            if not isinstance(choice, Choice):
                failure = await self._ask_outside(choice)
                if failure is not None and self.is_plain:
                    await self._fail(failure)
                if failure is None or self.is_plain:
                    return
                continue
            try:
                is_again = bool(lost or declined) and continuation is None
                if choice.group in declined or (is_again and not self.placing.may_retry()):
                    break
                await self._ask(choice, continuation)
                return
            except _Declined as no:
                declined[choice.group] = no.failure
            except _Lost as loss:
                self.placing.fail(choice, str(loss))
                lost.add(choice.group)
                verdict = self._verdict()
                if isinstance(verdict, GiveUp):
                    break
                continuation = verdict.continuation if isinstance(verdict, GoOn) else None
            finally:
                self.placing.end(choice)
        await self._fail(next(iter(declined.values()), GROUP_LOST) if not lost else GROUP_LOST)

    async def tell_waiting(self, comment: bytes) -> None:
        """Tell the client of a stream for what it waits. Its head goes out with the first such word."""
        await self._client.start(200, EVENT_STREAM)
        await self._client.body(comment, more=True)

    def _reply_added(self) -> Added:
        return [*self.reply_added, *self.placing.easing.for_client]

    def _verdict(self) -> GoOn | Again | GiveUp:
        if self.is_plain:
            return GiveUp("a plain reply had begun")
        return self.progress.lose(self._loop.time())

    async def _ask(self, choice: Choice, continuation: Continuation | None) -> None:
        """Ask a group, and pass its reply on to its end. Raises _Lost and _Declined."""
        try:
            pool = self.placing.pool(choice.group)
            connection = await pool.ask(*self._request(continuation))
        except (UpstreamLost, KeyError) as error:
            raise _Lost(str(error)) from error
        self.group, refusal = choice.group, None
        try:
            await self._pass_on(connection, choice, continuation)
        except _Refused as no:
            refusal = no.failure
        except (UpstreamLost, BrokenFrames) as error:
            raise _Lost(str(error)) from error
        finally:
            pool.done(connection)
        if refusal is not None:
            await self._fail(refusal)

    def _request(self, continuation: Continuation | None) -> tuple[bytes, list[bytes]]:
        out = self.outgoing
        added = [*out.added, *self.placing.easing.for_worker, (FRAMES_HEADER.encode(), b"1")]
        parts = [out.body] if out.body else []
        if continuation is not None:
            parts = continued(continuation, out.body)
            added.append((b"content-type", CONTINUED_TYPE.encode()))
        return request_head(out.method, out.target, out.headers, sum(map(len, parts)), added), parts

    async def _pass_on(self, connection: Connection, choice: Choice, continuation: Continuation | None) -> None:
        waits_long = not self.outgoing.streams and self.placing.answers_late(choice.group)
        wait_s = self.waits.whole_s if waits_long else self.waits.head_s
        head = await connection.head(wait_s)
        if head.get(b"content-type") == FRAMES_TYPE.encode():
            await self._pass_frames(connection, choice)
        elif head.status in _BUSY:
            await read_away(connection, self.waits.last_s)
            raise _Declined(_busy(head))
        elif continuation is not None and head.status == _UNFIT:
            await read_away(connection, self.waits.last_s)
            raise _Declined(GROUP_LOST)
        elif continuation is not None:
            raise _Lost(f"asked to go on with a reply it answered {head.status}")
        else:
            await self._pass_plain(connection, head, choice)

    async def _pass_frames(self, connection: Connection, choice: Choice) -> None:
        reader, progress = FrameReader(), self.progress
        self._is_open = False
        while not progress.is_over:
            data = await connection.read(self.waits.silence_s)
            if not data:
                raise _Lost("its frames ended before its reply did")
            try:
                for frame in reader.feed(data):
                    if isinstance(frame.meaning, Fail) and frame.meaning.can_continue:
                        raise _Lost(f"it cannot go on: {frame.meaning.code}")
                    await self._pass_frame(frame, choice)
                    if isinstance(frame.meaning, Close | Fail):
                        break  # what comes behind the end is nothing of the reply
            except (_Lost, BrokenFrames):
                await self._tell_stream()  # what was taken counts as seen, so it has to be
                raise
            await self._tell_stream()
        await read_away(connection, self.waits.last_s)

    async def _pass_frame(self, frame: Frame, choice: Choice) -> None:
        """Take a frame of the group that writes. Raises _Lost where its reply is not open yet and that opens none."""
        meaning, progress = frame.meaning, self.progress
        self._is_open = self._is_open or isinstance(meaning, Open)
        if not self._is_open and not isinstance(meaning, Fail):
            raise _Lost(f"it began with {type(meaning).__name__.lower()}, and not by opening its reply")
        num_tokens = progress.num_tokens
        progress.take(meaning)
        self._watch(meaning)
        if isinstance(meaning, Open):
            await self._opened(meaning, choice)
        if num_tokens < progress.num_tokens:
            self._note_first()
            self.placing.grow(choice, progress.num_tokens - num_tokens)
        if isinstance(meaning, Close | Fail):
            self._end(meaning)
            await self.ended()
        if isinstance(meaning, Fail) and not self._client.has_started:
            await self._fail(meaning.failure)
            return
        if not self.outgoing.streams:
            if isinstance(meaning, Close | Fail):
                await self._tell_whole(meaning, frame.told)
            return
        if isinstance(meaning, Open):
            await self._client.start(meaning.status, _encoded(meaning.headers))
        if frame.told:
            self._untold.append(frame.told)

    async def _opened(self, opened: Open, choice: Choice) -> None:
        """Note that a group has begun the reply. Raises _Refused for a prompt of more tokens than may be used."""
        self.placing.succeed(choice, opened.num_prompt_tokens)
        if opened is self.progress.opened and (failure := await self.opening(opened.num_prompt_tokens)) is not None:
            raise _Refused(failure)

    def _watch(self, meaning: Meaning) -> None:
        match meaning:
            case Open():
                self.watching.opened(meaning)
            case Tokens():
                self.watching.tokens(meaning)
            case Close():
                self.watching.closed(meaning)

    async def _tell_stream(self) -> None:
        """Tell the client of a stream, in one write, what came since the last time."""
        told, is_over = b"".join(self._untold), self.progress.is_over
        self._untold.clear()
        if self.outgoing.streams and (told or is_over) and not self._client.is_over:
            await self._client.body(told, more=not is_over)

    async def _tell_whole(self, meaning: Close | Fail, told: bytes) -> None:
        if isinstance(meaning, Fail):
            await self._fail(meaning.failure)
            return
        opened = self.progress.opened
        headers = [] if opened is None else _encoded(opened.headers)
        length = (b"content-length", str(len(told)).encode())
        await self._client.start(200 if opened is None else opened.status, [*headers, length])
        await self._client.body(told, more=False)

    def _end(self, meaning: Close | Fail) -> None:
        if isinstance(meaning, Close):
            self.outcome = Outcome.FINISHED
        else:
            self.outcome = _outcome_of(meaning.status)

    async def _pass_plain(self, connection: Connection, head: Head, choice: Choice) -> None:
        """Pass on a reply that is no frames: a refusal, a short answer, or one of a worker from before."""
        self.placing.succeed(choice, None)
        self._as_it_is = AsItIs(head.get(b"content-type"))
        await self._pass_as_it_comes(connection, head, self._as_it_is, self.waits.silence_s)

    async def _pass_as_it_comes(self, connection: Connection, head: Head, reading: Reading, silence_s: float) -> None:
        self.is_plain, self.plain_status = True, head.status

        async def over() -> None:
            self.told, self.outcome = reading.told, _outcome_of(head.status)
            await self.ended()

        failure = await pass_plain(
            connection, head, reading, self._client, silence_s=silence_s, began=self._note_first, over=over
        )
        if failure is not None:
            await self._fail(failure)

    def _note_first(self) -> None:
        self.first_token_at = self.first_token_at or self._loop.time()

    async def _ask_outside(self, outside: Outside) -> Failure | None:
        """Ask a server outside, and pass its reply on to its end; return why there is none, or not all of one."""
        out, connection = self.outgoing, None
        self.group = outside.name
        try:
            path = out.target.partition("?")[0]
            connection, reading = await outside.ask(path, out.headers, out.body, streams=out.streams)
            head = await connection.head(self.waits.outside_s if out.streams else self.waits.whole_s)
            if head.status >= 300 and head.status not in TO_THE_CLIENT:
                await read_away(connection, self.waits.last_s)
                raise UpstreamLost(f"it answered {head.status}", has_answered=True)
            outside.succeed()
            await self._pass_as_it_comes(connection, head, reading, self.waits.outside_s)
        except UpstreamLost as loss:
            outside.fail(str(loss))
            return lost_outside(outside.name)
        finally:
            if connection is not None:
                outside.done(connection)
        return None

    async def cut(self) -> None:
        """Tell the client that the gateway has no more time for it, once `run` was cancelled. Raises as that does."""
        if self.outcome is Outcome.CANCELLED:
            await self._fail(CUT)

    async def _fail(self, failure: Failure) -> None:
        """Tell the client that there is no more."""
        self.failure = failure
        self.outcome = _outcome_of(failure.status)
        await self.ended()
        await self._client.fail(failure)


GROUP_LOST = Failure(
    503,
    "the group that wrote this answer was lost, and no other one could go on; try again",
    "service_unavailable",
    code="group_lost",
    retry_after_s=1,
)

CUT = Failure(
    503,
    "the gateway stops, and could not wait for the end of this answer; try again",
    "service_unavailable",
    code="gateway_stopped",
    retry_after_s=1,
)


def _outcome_of(status: int) -> Outcome:
    return Outcome.FINISHED if status < 400 else Outcome.REFUSED if status < 500 else Outcome.FAILED


def _busy(head: Head) -> Failure:
    retry_after = head.get(b"retry-after") or b""
    return Failure(
        503,
        "no group takes the request now; try again",
        "service_unavailable",
        code="overloaded",
        retry_after_s=int(retry_after) if retry_after.isdigit() and len(retry_after) < 6 else 1,
    )


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
