"""One connection to a group: HTTP/1.1, one exchange after the other, little in memory that nobody has read."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import httptools

HIGH_WATER = 2**18
"""Bytes of a reply that nobody has read yet and that make the group wait until they are read."""

MAX_HEAD_BYTES = 2**16


class UpstreamLost(Exception):
    """A group did not answer to the end: it is gone, silent, or says what is no HTTP.

    has_answered: whether anything of the reply was read, so that the request surely was.
    """

    def __init__(self, reason: str, *, has_answered: bool) -> None:
        super().__init__(reason)
        self.has_answered = has_answered


class NoConnection(UpstreamLost):
    """A group could not be reached: nothing of a request was sent to it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, has_answered=False)


@dataclass(frozen=True)
class Head:
    """Of a reply. Names are lower case; headers that are about the connection itself are left out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header."""
        return next((value for known, value in self.headers if known == name), None)


_OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"trailer", b"upgrade")
)


_LENGTHS = frozenset((b"content-length", b"transfer-encoding"))


@dataclass
class _Reply:
    """What has come of the reply to the request under way."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    head_bytes: int = 0
    head: Head | None = None
    pieces: deque[bytes] = field(default_factory=deque)
    num_bytes: int = 0
    ends_by_close: bool = True
    is_complete: bool = False


class Connection(asyncio.Protocol):
    """Use it from one event loop, for one exchange at a time: ask, head, read until b"", then ask again."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: _Reply | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._is_paused = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._keeps_alive = True
        self.idle_since = self._loop.time()
        self.is_kept = False  # by a pool, until it is used again

    @property
    def is_open(self) -> bool:
        return self._lost is None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: the last reply was read to its end, and the group keeps the line."""
        return self._lost is None and self._reply is None and self._keeps_alive

    async def ask(self, head: bytes, body: Iterable[bytes], within_s: float | None = None) -> None:
        """Send a request. Waits while the group does not read, so long for all of it. Raises UpstreamLost.

        A group that answers before it has read all, as to refuse it, gets no more: what it says is there to be read.
        """
        assert self.is_reusable
        reply = self._reply = _Reply()
        self._parser = httptools.HttpResponseParser(self)
        transport = self._opened()
        until_s = None if within_s is None else self._loop.time() + within_s
        transport.writelines((head, *body))  # in one call of the system
        if not self._can_write.is_set():
            try:
                async with asyncio.timeout_at(until_s):
                    await self._can_write.wait()
            except TimeoutError:
                raise UpstreamLost(f"it has not read a request within {within_s:g} s", has_answered=False) from None
        if reply.head is not None:
            self._keeps_alive = False
            return
        self._raise_if_lost()

    async def head(self, within_s: float | None = None) -> Head:
        """Return status and headers of the reply. Raises UpstreamLost, also where they do not come in time."""
        reply = self._under_way()
        while reply.head is None:
            self._raise_if_lost()
            await self._wait(within_s, "it did not answer")
        return reply.head

    async def read(self, within_s: float | None = None) -> bytes:
        """Return all that has come of the body since the last time, at least a byte; b"" at its end.

        Raises UpstreamLost, once all that came before is read, also where nothing comes in time.
        """
        reply = self._under_way()
        while not reply.pieces:
            if reply.is_complete:
                self._reply = None
                self.idle_since = self._loop.time()
                return b""
            self._raise_if_lost()
            await self._wait(within_s, "it was silent in the middle of a reply")
        data = reply.pieces[0] if len(reply.pieces) == 1 else b"".join(reply.pieces)
        reply.pieces.clear()
        reply.num_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._opened().resume_reading()
        return data

    def close(self) -> None:
        """End the connection at once: what the group still writes is for nobody."""
        self.is_kept = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type, but in all it does

    def connection_lost(self, exc: Exception | None) -> None:
        reply = self._reply
        if exc is None and reply is not None and reply.head is not None and reply.ends_by_close:
            reply.is_complete = True
        self._lose("the connection was closed" if exc is None else f"the connection broke: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._reply is None:  # nobody has asked
            self._lose("the group spoke without being asked")
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"the group does not speak HTTP: {error.__context__ or error}")
            self.close()
        reply = self._reply
        if reply is not None and reply.num_bytes > HIGH_WATER and not self._is_paused and self._lost is None:
            self._is_paused = True
            self._opened().pause_reading()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def on_message_begin(self) -> None:
        if self._under_way().is_complete:
            raise ValueError("it answered twice")

    def on_header(self, name: bytes, value: bytes) -> None:
        reply = self._under_way()
        reply.head_bytes += len(name) + len(value)
        if reply.head_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"its head has more than {MAX_HEAD_BYTES} bytes")
        name = name.lower()
        if name in _LENGTHS:
            reply.ends_by_close = False
        if name not in _OF_THE_CONNECTION:
            reply.headers.append((name, value))

    def on_headers_complete(self) -> None:
        reply = self._under_way()
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer: another head follows
            reply.headers.clear()
            return
        self._keeps_alive = self._parser.should_keep_alive()
        reply.head = Head(status, tuple(reply.headers))
        self._can_write.set()  # who still sends the request is to stop
        self._wake()

    def on_body(self, data: bytes) -> None:
        reply = self._under_way()
        reply.pieces.append(data)
        reply.num_bytes += len(data)
        self._wake()

    def on_message_complete(self) -> None:
        reply = self._under_way()
        if reply.head is not None:
            reply.is_complete = True
            self._wake()

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._can_write.set()
        self._wake()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            reply = self._reply
            raise UpstreamLost(self._lost, has_answered=reply is not None and reply.head is not None)

    def _opened(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def _under_way(self) -> _Reply:
        assert self._reply is not None
        return self._reply

    async def _wait(self, within_s: float | None, otherwise: str) -> None:
        """Wait for a word of the group, with a timer of our own: asyncio.timeout costs five times as much."""
        assert self._waiter is None, "one reader at a time"
        waiter = self._waiter = self._loop.create_future()
        late = None if within_s is None else self._loop.call_later(within_s, _give_up, waiter, otherwise, within_s)
        try:
            await waiter
        finally:
            self._waiter = None
            if late is not None:
                late.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _give_up(waiter: asyncio.Future[None], otherwise: str, within_s: float) -> None:
    if not waiter.done():
        waiter.set_exception(UpstreamLost(f"{otherwise} within {within_s:g} s", has_answered=False))
