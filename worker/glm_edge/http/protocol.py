"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, with limits, and errors in the API's own shape.

What uvicorn leaves open and this closes: the size and the time of a request's head, how a body is wrapped, headers that
come after it, how many connections there are, a client that has sent its request and closed its half of the connection,
and errors as plain text.
"""

import logging
import re
from asyncio import BaseTransport, TimerHandle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
)
from glm_edge.http.quiet_log import QuietLog

log = logging.getLogger(__name__)
_quiet = QuietLog(log)

MAX_HEAD_BYTES = 64 * 2**10
MAX_HEADERS = 128
MAX_SMALL_CHUNKS = 1024  # of a body: each costs more than the bytes in it
SMALL_CHUNK_BYTES = 64
SPARE_BYTES = 2**20  # beside as many bytes as the body has: heads of chunks, their extensions, trailers
MAX_CONNECTIONS = 2048  # of clients; each may wait for minutes, and costs some 50 KiB
HEAD_S = 20.0  # for the head of a request, from its first byte
IDLE_S = 75.0  # of a connection without a request: longer than usual proxies keep theirs, so that they close first
LINGER_S = 10.0  # what a refused client goes on sending is read away, else it sees a reset before the answer
LINGER_BYTES = 2 * MAX_BODY_BYTES
PROBE_FIRST_S = 0.05  # a closed connection answers the first probe with a reset, which the second one meets
PROBE_S = 1.0
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"  # the one interim response that every client skips
_PROBE_OF_EVENTS = b"4\r\n: \n\n\r\n"  # a comment among server-sent events, the only thing that is sent in chunks

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """An error. body: JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Answers = Callable[[str, Headers, Failure], Answer]
"""(path, headers so far, failure) -> the error in the words of the surface that has this path."""


class Protocol(HttpToolsProtocol):
    """One connection. Subclassed by protocol_with, which uvicorn makes one of for each connection."""

    answer_to: Answers
    open_connections: Connections

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.open_connections.count(len(self.connections), MAX_CONNECTIONS)
        self._head_timer: TimerHandle | None = None
        self._probe_timer: TimerHandle | None = None
        self._linger_timer: TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self.url, self.headers = b"", []
        self._head_bytes = self._num_discarded_bytes = 0
        self._num_chunks = self._num_sent_bytes = self._num_body_bytes = 0
        self._is_in_head = False
        self._has_failed = False
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                Failure(
                    503,
                    f"{MAX_CONNECTIONS} connections are open, which is what this server allows; try again",
                    "service_unavailable",
                    code="overloaded",
                    retry_after_s=1,
                ),
                lingers=False,
            )
            return
        self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._head_timer, self._probe_timer, self._linger_timer)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.open_connections.count(len(self.connections), MAX_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        if self._has_failed or self.parser is None:
            self._discard(data)
            return
        if not self._is_in_head and (self.cycle is None or not self.cycle.more_body):
            self._begin_head()
        self._unset_keepalive_if_required()
        try:
            self._feed(_without_upgrade(data) if self._is_in_head else data)
        except httptools.HttpParserUpgrade:
            if self.cycle is not None:
                self.cycle.keep_alive = False  # the parser takes what follows for another protocol
        except Refused as refused:
            self._refuse(refused.failure)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause.failure if isinstance(cause, Refused) else unparsed(str(cause or error)))
        except httptools.HttpParserError as error:
            self._refuse(unparsed(str(error)))

    def _feed(self, data: bytes) -> None:
        """Parse in parts: of a head only as many bytes as are allowed. Raises Refused and what the parser raises."""
        start = 0
        while start < len(data):
            most = MAX_HEAD_BYTES - self._head_bytes if self._is_in_head else MAX_HEAD_BYTES
            if most == 0:
                raise Refused(head_too_large(f"is larger than {MAX_HEAD_BYTES} bytes"))
            part = data[start : start + most]
            start += len(part)
            if self._is_in_head:
                self._head_bytes += len(part)
            self._num_sent_bytes += len(part)
            self.parser.feed_data(part)
            self._check_sent()

    def _check_sent(self) -> None:
        """Refuse a body that is too large, or whose wrapping is."""
        if self.cycle is None or not self.cycle.more_body:
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

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer: whoever checked the head has not seen it
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise Refused(head_too_large(f"has more than {MAX_HEADERS} headers"))

    def on_headers_complete(self) -> None:
        check_head(self.headers, self.parser.get_http_version())
        self._is_in_head = False
        self._head_bytes = 0
        self._stop(self._head_timer)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > MAX_SMALL_CHUNKS and self._num_body_bytes < self._num_chunks * SMALL_CHUNK_BYTES:
            raise Refused(
                malformed(
                    f"the body comes in more than {MAX_SMALL_CHUNKS} chunks of less than {SMALL_CHUNK_BYTES} bytes each"
                )
            )

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        super().on_body(body)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep our half open while an answer is owed: the client may read on. Probes tell whether it is still there."""
        if self._has_failed or self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        self._probe(PROBE_FIRST_S)
        return True

    def _probe(self, next_s: float) -> None:
        cycle = self._answering  # of several requests sent at once the one whose answer is on the wire
        if self.transport.is_closing() or cycle is None or self.cycle.response_complete:
            return
        if not cycle.response_started:
            self.transport.write(_PROBE)
        elif cycle.chunked_encoding and not cycle.response_complete:
            self.transport.write(_PROBE_OF_EVENTS)
        self._probe_timer = self.loop.call_later(next_s, self._probe, PROBE_S)

    def _begin_head(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        self.url, self.headers = b"", []
        self._stop(self._head_timer)
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._is_in_head and not self.transport.is_closing():
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
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        if self._has_failed:
            self.transport.close()
        else:
            super().shutdown()

    def _refuse(self, failure: Failure, *, lingers: bool = True) -> None:
        """Answer what is no request, or too much of one, and close. In the middle of an answer just close."""
        self._has_failed = True
        self._stop(self._head_timer, self._probe_timer)
        self._unset_keepalive_if_required()
        _quiet.warning("refused a connection's request: %s", failure.message)
        if self._abandon() or self.transport.is_closing():
            self.transport.close()
            return
        answer = type(self).answer_to(self.url.decode("latin-1"), Headers(raw=self.headers), failure)
        head = [
            STATUS_LINE[answer.status],
            b"content-type: application/json\r\n",
            b"content-length: " + str(len(answer.body)).encode() + b"\r\n",
            *(f"{name}: {value}\r\n".encode() for name, value in answer.headers.items()),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, answer.body]))
        if lingers and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)
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


def _without_upgrade(data: bytes) -> bytes:
    """Return the beginning of a request without the offer to speak another protocol, as Java's client makes it.

    The parser would take the offer for accepted, and the body for the other protocol.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-offered:", head) + end + rest


def protocol_with(answers: Answers, connections: Connections) -> type[Protocol]:
    """Return the protocol of a server whose surfaces write errors like this. connections: told how many are open."""

    class ServersProtocol(Protocol):
        answer_to = staticmethod(answers)
        open_connections = connections

    return ServersProtocol


def options(answers: Answers, connections: Connections) -> dict[str, Any]:
    """Return what uvicorn's Config needs for this protocol."""
    return {"http": protocol_with(answers, connections), "timeout_keep_alive": int(IDLE_S)}
