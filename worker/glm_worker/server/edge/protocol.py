"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, with limits, and errors in the API's own shape.

What uvicorn leaves open and this closes: the size and the time of a request's head, how many connections there are, a
client that has sent its request and closed its half of the connection, and errors as plain text.
"""

import logging
import re
from asyncio import BaseTransport, TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from glm_worker.server.edge.connections import Connections
from glm_worker.server.edge.quiet_log import QuietLog
from glm_worker.server.refusals import Failure

log = logging.getLogger(__name__)
_quiet = QuietLog(log)

MAX_HEAD_BYTES = 64 * 2**10
MAX_HEADERS = 128
MAX_SMALL_CHUNKS = 1024  # of a body: each costs more than the bytes in it
SMALL_CHUNK_BYTES = 64
MAX_CONNECTIONS = 2048  # of clients; each may wait for minutes, and costs some 50 KiB
HEAD_S = 20.0  # for the head of a request, from its first byte
IDLE_S = 75.0  # of a connection without a request: longer than usual proxies keep theirs, so that they close first
PROBE_FIRST_S = 0.05  # a closed connection answers the first probe with a reset, which the second one meets
PROBE_S = 1.0
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"  # the one interim response that every client skips
_PROBE_OF_EVENTS = b"4\r\n: \n\n\r\n"  # a comment among server-sent events, the only thing that is sent in chunks

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

Body = Callable[[str, Failure], bytes]
"""(path, failure) -> the JSON of an error in the words of the surface that has this path."""


class Protocol(HttpToolsProtocol):
    """One connection. Subclassed by protocol_with, which uvicorn makes one of for each connection."""

    error_body: Body
    open_connections: Connections

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.open_connections.count(len(self.connections), MAX_CONNECTIONS)
        self._head_timer: TimerHandle | None = None
        self._probe_timer: TimerHandle | None = None
        self._head_bytes = 0
        self._num_chunks = self._num_body_bytes = 0
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
                )
            )
            return
        self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._head_timer, self._probe_timer)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.open_connections.count(len(self.connections), MAX_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        if self._has_failed or self.parser is None:
            return
        if not self._is_in_head and (self.cycle is None or not self.cycle.more_body):
            self._begin_head()
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self.cycle is not None:
                self.cycle.keep_alive = False  # the parser takes what follows for another protocol
        except _Refused as refused:
            self._refuse(refused.failure)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause.failure if isinstance(cause, _Refused) else _malformed(str(cause or error)))
        except httptools.HttpParserError as error:
            self._refuse(_malformed(str(error)))
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self._has_failed:
            self._refuse(_head_too_large(f"is larger than {MAX_HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._num_chunks = self._num_body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise _Refused(_head_too_large(f"has more than {MAX_HEADERS} headers"))

    def on_headers_complete(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise _Refused(_malformed("the header Host is missing" if not hosts else "the header Host is there twice"))
        self._is_in_head = False
        self._head_bytes = 0
        self._stop(self._head_timer)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > MAX_SMALL_CHUNKS and self._num_body_bytes < self._num_chunks * SMALL_CHUNK_BYTES:
            raise _Refused(
                _malformed(
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
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        if not self.cycle.response_started:
            self.transport.write(_PROBE)
        elif self.cycle.chunked_encoding:
            self.transport.write(_PROBE_OF_EVENTS)
        self._probe_timer = self.loop.call_later(next_s, self._probe, PROBE_S)

    def _begin_head(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
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

    def _refuse(self, failure: Failure) -> None:
        """Answer what is no request, or too much of one, and close. In the middle of an answer just close."""
        self._has_failed = True
        _quiet.warning("refused a connection's request: %s", failure.message)
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        path = bytes(getattr(self, "url", b"")).decode("latin-1")
        body = type(self).error_body(path, failure)
        head = [
            STATUS_LINE[failure.status],
            b"content-type: application/json\r\n",
            b"content-length: " + str(len(body)).encode() + b"\r\n",
            *(f"{name}: {value}\r\n".encode() for name, value in failure.headers.items()),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
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


class _Refused(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def protocol_with(body: Body, connections: Connections) -> type[Protocol]:
    """Return the protocol of a server whose surfaces write errors like this. connections: told how many are open."""

    class ServersProtocol(Protocol):
        error_body = staticmethod(body)
        open_connections = connections

    return ServersProtocol


def _malformed(reason: str) -> Failure:
    said = reason[:200].rstrip(".") or "it cannot be parsed"
    return Failure(400, f"this is no valid HTTP request: {said}", "invalid_request_error", code="malformed_request")


def _head_too_large(what: str) -> Failure:
    return Failure(431, f"the head of the request {what}", "invalid_request_error", code="headers_too_large")


def options(body: Body, connections: Connections) -> dict[str, Any]:
    """Return what uvicorn's Config needs for this protocol."""
    return {"http": protocol_with(body, connections), "timeout_keep_alive": int(IDLE_S)}
