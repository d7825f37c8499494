"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, with limits, and errors in the API's own shape.

What uvicorn leaves open and this closes: the size and the time of a request's head, how a body is wrapped, headers that
come after it, how many connections there are, a client that has sent its request and closed its half of the connection,
one that offers another protocol, old clients, and errors as plain text.

A connection is in one of these states, each with its own end:

| state | what it is | how long |
|---|---|---|
| idle | no request has begun, no answer is owed; empty lines count for nothing | `IDLE_S`, then it is closed |
| head | a head has begun | `HEAD_S` for each, then 408 |
| answering | a head is whole and its answer is not; the body may still come | as long as the application allows |
| rest | the answer is whole, its body is not: what comes of it is dropped | `REST_S`, then it is closed |
| lingering | a request was refused, and our half is closed: what comes is dropped | `LINGER_S`, then it is closed |
| closing | it is closed on our side, and its client has not read all | `UNREAD_S`, then the rest is dropped |

In every state a client that reads so little for `UNREAD_S` that nothing more can be written is cut off: else it would
hold its request, and what works on that, for as long as it likes.

A head may begin while an answer is owed to the request before it. Whatever is wrong with it then waits: first come the
answers that are owed, then the refusal. So nothing that a client sends after a request cuts the answer to that request.
While an answer is owed, a client that goes away is noticed: by reading, or by probes where we do not read.

Where there is no room for another connection, the one that has been owed no answer for longest goes, in whatever state.
"""

import enum
import logging
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httptools
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from glm_edge.errors.failure import Failure
from glm_edge.http.connections import Connections
from glm_edge.http.heads import (
    MAX_BODY_BYTES,
    TOO_LARGE,
    Refused,
    body_too_large,
    check_head,
    head_too_large,
    malformed,
    unparsed,
    without_offer,
)
from glm_edge.http.old_clients import until_closed
from glm_edge.http.parts import Parts
from glm_edge.http.quiet_log import QuietLog
from glm_edge.http.whole_heads import WholeHeads

log = logging.getLogger(__name__)
_quiet = QuietLog(log)

MAX_HEAD_BYTES = 64 * 2**10
MAX_HEADERS = 128
MAX_SMALL_CHUNKS = 1024  # of a body: each costs more than the bytes in it
SMALL_CHUNK_BYTES = 64
SPARE_BYTES = 2**20  # beside as many bytes as the body has: heads of chunks, their extensions, trailers
MAX_UNREAD_BYTES = 256 * 2**10  # of a body, before the application has taken them
TOLD_S = 0.1  # then the application is told of a part, however little it is: who waits for a body sees that it comes
MAX_CONNECTIONS = 2048  # of clients; each may wait for minutes, and costs some 50 KiB
MAX_WAITING = 32  # requests behind the one that is being answered, on one connection
HEAD_S = 20.0  # for the head of a request, from its first byte
IDLE_S = 75.0  # of a connection without a request: longer than usual proxies keep theirs, so that they close first
REST_S = 10.0  # for what is left of a body, once its answer is complete
LINGER_S = 10.0  # what a refused client goes on sending is read away, else it sees a reset before the answer
LINGER_BYTES = 2 * MAX_BODY_BYTES
UNREAD_S = 300.0  # in which a client must read on
PROBE_FIRST_S = 0.05  # a closed connection answers the first probe with a reset, which the second one meets soon
PROBE_SECOND_S = 0.2
PROBE_S = 1.0  # of those after these two
_END_OF_HEAD = b"\r\n\r\n"
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"  # the one interim response that every client skips
_PROBE_OF_EVENTS = b"4\r\n: \n\n\r\n"  # a comment among server-sent events, the only thing that is sent in chunks


@dataclass(frozen=True)
class Answer:
    """An error. body: JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Answers = Callable[[str, Headers, Failure], Answer]
"""(path, headers so far, failure) -> the error in the words of the surface that has this path."""


class _State(enum.Enum):
    """What a connection waits for: see above."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    ANSWERING = enum.auto()
    REST = enum.auto()
    LINGERING = enum.auto()
    CLOSING = enum.auto()


class Protocol(HttpToolsProtocol):
    """One connection. Subclassed by protocol_with, which uvicorn makes one of for each connection."""

    answer_to: Answers
    open_connections: Connections

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(WholeHeads(cast(Transport, transport), self.loop.call_soon))
        self._state: _State | None = None
        self._timer: TimerHandle | None = None
        self._probe_timer: TimerHandle | None = None
        self._unread_timer: TimerHandle | None = None
        self._told_timer: TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self._refusal: Failure | None = None  # waits for the answers that are owed
        self.url, self.headers = b"", []
        self._head_bytes = self._num_discarded_bytes = self._body_len = 0
        self._num_chunks = self._num_sent_bytes = self._num_body_bytes = 0
        self._is_in_head = False
        self._has_failed = False
        self._is_half_closed = False  # by the client
        if not self.open_connections.open(self, MAX_CONNECTIONS):
            most = self.open_connections.most(MAX_CONNECTIONS)
            self._refuse(
                Failure(
                    503,
                    f"answers are owed on {most} connections, which is what this server allows; try again",
                    "service_unavailable",
                    code="overloaded",
                    retry_after_s=1,
                ),
                lingers=False,
            )
            return
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._timer, self._probe_timer, self._unread_timer, self._told_timer)
        self._state = _State.CLOSING
        self._abandon()
        super().connection_lost(exc)
        self.open_connections.close(self, MAX_CONNECTIONS)

    def give_way(self) -> None:
        """Close at once, with what the client has not read: somebody else needs the place, and no answer is owed."""
        self.transport.abort()

    def _settle(self) -> None:
        """Start the timer of the state the connection is in now, if it is another one than before."""
        self.open_connections.note(self, MAX_CONNECTIONS, is_owed=self._owes())
        state, seconds, at_end = self._current()
        if state is not self._state:
            self._stop(self._timer)
            self._state = state
            self._timer = None if seconds is None else self.loop.call_later(seconds, at_end)

    def _current(self) -> tuple[_State, float | None, Callable[[], object]]:
        """Return the state, how long it may last (None: without end), and what ends it."""
        close = self._close
        if self.transport.is_closing():
            return _State.CLOSING, UNREAD_S, self.transport.abort
        if self._is_in_head and not self._has_failed:
            return _State.HEAD, HEAD_S, self._head_is_late
        if self._owes():
            return _State.ANSWERING, None, close
        if self._has_failed:
            return _State.LINGERING, LINGER_S, close
        if self._has_body_to_come():
            return _State.REST, REST_S, close
        return _State.IDLE, IDLE_S, close

    def _close(self) -> None:
        self.transport.close()
        self._settle()

    def pause_writing(self) -> None:
        """Nothing more can be written until the client has read some of what was."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_S, self._is_unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop(self._unread_timer)

    def _is_unread(self) -> None:
        _quiet.warning("a client has not read for %g s: its connection is cut off", UNREAD_S)
        self.transport.abort()

    def _owes(self) -> bool:
        """Tell whether an answer is owed: the last request is answered last."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def _has_body_to_come(self) -> bool:
        return not self._is_in_head and self.cycle is not None and self.cycle.more_body

    def data_received(self, data: bytes) -> None:
        if self._has_failed or self.parser is None:
            self._discard(data)
            return
        try:
            self._feed(data)
        except Refused as refused:
            self._refuse(refused.failure)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause.failure if isinstance(cause, Refused) else unparsed(str(cause or error)))
        except httptools.HttpParserError as error:
            self._refuse(unparsed(str(error)))

    def _feed(self, data: bytes) -> None:
        """Parse in parts: of a head only as many bytes as are allowed. Raises Refused and what the parser raises."""
        start, view = 0, memoryview(data)
        while start < len(data):
            is_body = self._has_body_to_come()
            if is_body:  # up to its end, if that is known, for each part of it costs a round
                most = max(MAX_HEAD_BYTES, self._body_len - self._num_body_bytes)
            else:
                most = MAX_HEAD_BYTES - self._head_bytes
                if len(data) - start > most and (end := data.find(_END_OF_HEAD, start, start + most)) >= 0:
                    most = end + len(_END_OF_HEAD) - start
            if most == 0:
                raise Refused(head_too_large(f"is larger than {MAX_HEAD_BYTES} bytes"))
            part = view[start : start + most]
            if not is_body:
                self._head_bytes += len(part)
            offered_at: int | None = None
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as offer:
                offered_at = offer.args[0]  # the end of the head
            if offered_at is not None:
                part = part[:offered_at]
                self._read_without_offer()
            start += len(part)
            self._num_sent_bytes += len(part)
            self._check_sent()
        if self._told_timer is None and self._has_body_to_come() and self.cycle.body:
            self._told_timer = self.loop.call_later(TOLD_S, self._tell, self.cycle)

    def _tell(self, cycle: RequestResponseCycle) -> None:
        """Tell the application that a part of its body is here."""
        self._told_timer = None
        if cycle.body:
            cycle.message_event.set()

    def _read_without_offer(self) -> None:
        """Read a head again without its offer to speak another protocol, as Java's client makes it.

        The parser takes the offer for accepted, and the body for the other protocol.
        """
        head = without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.parser.feed_data(head)

    def _check_sent(self) -> None:
        """Refuse a body that is too large, or whose wrapping is."""
        if not self._has_body_to_come():
            return
        if self._num_sent_bytes > 2 * min(self._num_body_bytes, MAX_BODY_BYTES) + SPARE_BYTES:
            is_wrapping = self._num_body_bytes <= MAX_BODY_BYTES
            raise Refused(
                body_too_large(
                    f"the chunks of the body have more than {SPARE_BYTES} bytes beside what they hold"
                    if is_wrapping
                    else TOO_LARGE
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._num_chunks = self._num_sent_bytes = self._num_body_bytes = 0
        self._settle()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer: whoever checked the head has not seen it
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise Refused(head_too_large(f"has more than {MAX_HEADERS} headers"))

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise Refused(malformed("its method is CONNECT, which is for proxies"))
        if self.parser.should_upgrade():
            return  # the head is read again
        version = self.parser.get_http_version()
        check_head(self.headers, version)
        if len(self.pipeline) >= MAX_WAITING:
            raise Refused(malformed(f"it is sent while {MAX_WAITING} requests before it wait on the same connection"))
        self._is_in_head = False
        self._head_bytes = 0
        self._body_len = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        super().on_headers_complete()
        if version == "1.0":
            self.cycle.waiting_for_100_continue = False
        if self.pipeline:
            self._probe_soon()  # nothing is read until the answer before it is complete
        self._settle()

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > MAX_SMALL_CHUNKS and self._num_body_bytes < self._num_chunks * SMALL_CHUNK_BYTES:
            raise Refused(
                malformed(
                    f"the body comes in more than {MAX_SMALL_CHUNKS} chunks of less than {SMALL_CHUNK_BYTES} bytes each"
                )
            )

    def on_body(self, body: bytes) -> None:
        """As uvicorn's, which stops reading after 64 KiB: each stop costs a round through the loop, and long prompts
        that come at once would all be complete only when the last one is. Nor is the application told of each part,
        which costs it as much.
        """
        self._num_body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        if not cycle.body:
            cycle.body = Parts()  # type: ignore[assignment]
        cycle.body += body
        if len(cycle.body) > MAX_UNREAD_BYTES:
            self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the body is still to come
        super().on_message_complete()
        self._stop(self._told_timer)
        self._told_timer = None
        self.cycle.more_body = False  # uvicorn forgets that where the answer is complete
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # there is one timer, and it is ours
        if self._refusal is not None and not self._owes():
            self._answer_refusal(self._refusal)
        self._settle()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep our half open while an answer is owed: the client may read on. Probes tell whether it is still there.

        A client of HTTP/1.0 cannot be probed, and those that close are mostly proxies whose client is gone: it is gone.
        """
        cycle = self.cycle
        if not self._owes() or cycle.more_body or cycle.scope["http_version"] == "1.0":
            return False
        if not self.transport.can_write_eof():  # TLS, whose connections have no halves
            return False
        cycle.keep_alive = False
        self._is_half_closed = True
        self._probe_soon()
        return True

    def _probe_soon(self) -> None:
        self._stop(self._probe_timer)
        self._probe_timer = self.loop.call_later(PROBE_FIRST_S, self._probe, PROBE_SECOND_S)

    def _probe(self, next_s: float) -> None:
        cycle = self._answering  # of several requests sent at once the one whose answer is on the wire
        if self.transport.is_closing() or cycle is None or cycle.response_complete or cycle.disconnected:
            return
        if not self._is_half_closed and not self.pipeline:
            return  # we read
        if not cycle.response_started:
            self.transport.write(_PROBE)
        elif cycle.chunked_encoding:
            self.transport.write(_PROBE_OF_EVENTS)
        self._probe_timer = self.loop.call_later(next_s, self._probe, PROBE_S)

    def _head_is_late(self) -> None:
        self._refuse(
            Failure(
                408,
                f"the head of the request was not complete within {HEAD_S:g} seconds",
                "invalid_request_error",
                code="request_timeout",
            )
        )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, until_closed(cycle, app) if cycle.scope["http_version"] == "1.0" else app)

    def shutdown(self) -> None:
        if self._owes():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _refuse(self, failure: Failure, *, lingers: bool = True) -> None:
        """Answer what is no request, or too much of one, once the answers before it are complete; then close.

        In the middle of an answer to the very request, or after it, just close.
        """
        self._has_failed = True
        _quiet.warning("refused a connection's request: %s", failure.message)
        is_of_body = self._has_body_to_come()
        if is_of_body and self.cycle is not self._answering:  # it waits behind others, and goes no further
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._answering  # type: ignore[assignment]
            is_of_body = False
        if is_of_body and self.cycle.response_complete:
            self._end(lingers=lingers)
        elif is_of_body and self._abandon():
            self.transport.close()
        elif not is_of_body and self._owes():
            self._refusal = failure
        else:
            self._answer_refusal(failure, lingers=lingers)
        self._settle()

    def _answer_refusal(self, failure: Failure, *, lingers: bool = True) -> None:
        if self.transport.is_closing():
            return
        answer = type(self).answer_to(self.url.decode("latin-1"), Headers(raw=self.headers), failure)
        head = [
            STATUS_LINE[answer.status],
            b"content-type: application/json\r\n",
            b"content-length: " + str(len(answer.body)).encode() + b"\r\n",
            *(f"{name}: {value}\r\n".encode() for name, value in answer.headers.items()),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, b"" if self._is_asked_by_head() else answer.body]))
        self._end(lingers=lingers)

    def _is_asked_by_head(self) -> bool:
        """Tell whether the request that is refused is one whose answer has no body."""
        return bool(self.url) and self.parser is not None and self.parser.get_method() == b"HEAD"

    def _end(self, *, lingers: bool) -> None:
        """Close our half, and read on for a while what the client still sends."""
        if lingers and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _abandon(self) -> bool:
        """Let what is being answered end as if the client were gone. Return whether its answer has begun."""
        self.pipeline.clear()
        cycle = self._answering
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        return cycle.response_started

    def _discard(self, data: bytes) -> None:
        self._num_discarded_bytes += len(data)
        if self._num_discarded_bytes > LINGER_BYTES:
            self.transport.close()

    @staticmethod
    def _stop(*timers: TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


def protocol_with(answers: Answers, connections: Connections) -> type[Protocol]:
    """Return the protocol of a server whose surfaces write errors like this. connections: told how many are open."""

    class ServersProtocol(Protocol):
        answer_to = staticmethod(answers)
        open_connections = connections

    return ServersProtocol


def options(answers: Answers, connections: Connections) -> dict[str, Any]:
    """Return what uvicorn's Config needs for this protocol."""
    return {"http": protocol_with(answers, connections), "ws": "none"}
