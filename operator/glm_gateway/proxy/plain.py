"""A reply that is no frames, passed on as it comes: of an older worker, from outside, a refusal, a short answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from glm_edge.errors.failure import Failure
from glm_gateway.proxy.client import Client
from glm_gateway.proxy.connection import Connection, Head, UpstreamLost
from glm_gateway.proxy.outside import Reading
from glm_gateway.surfaces.usage import Stored, Told, UsageReader

MAX_ERROR_BYTES = 2**16
IDLE_S = 15.0
"""Of a stream from outside: then a comment is written, for proxies on the way close what is silent for a minute."""


@dataclass
class AsItIs:
    """Reads a reply of a group."""

    content_type: bytes | None
    _usage: UsageReader = field(init=False)

    def __post_init__(self) -> None:
        self._usage = UsageReader(self.content_type)

    @property
    def told(self) -> Told | None:
        return self._usage.told

    @property
    def stored(self) -> Stored | None:
        return self._usage.stored

    def headers(self, head: Head) -> list[tuple[bytes, bytes]]:
        return list(head.headers)

    def feed(self, data: bytes) -> bytes:
        self._usage.feed(data)
        return data

    def end(self) -> bytes:
        return b""

    def idle(self) -> bytes:
        return b""  # workers write comments themselves


async def pass_plain(
    connection: Connection,
    head: Head,
    reading: Reading,
    client: Client,
    *,
    silence_s: float,
    began: Callable[[], None],
    over: Callable[[], Awaitable[None]],
) -> Failure | None:
    """Pass a reply on to its end; return the refusal where it is one that its client cannot be told as it is.

    began: called at its first byte. over: called when all of it was read, before its client has all; it may be called
    twice. Raises UpstreamLost.
    """
    if head.status >= 400 and client.has_started:  # a stream that has waited has a head that says otherwise
        said = b""
        while data := await connection.read(silence_s):
            said = (said + data)[:MAX_ERROR_BYTES]
        await over()
        return failure_in(head.status, said)
    await client.start(head.status, reading.headers(head))
    length, num_read = _length(head), 0
    async with _kept_alive(client, reading) as told:
        while data := await connection.read(silence_s):
            began()
            told()
            num_read += len(data)
            passed = reading.feed(data)
            if num_read == length:
                await over()
            await client.body(passed, more=True)
    await over()
    await client.body(reading.end(), more=False)
    return None


def _length(head: Head) -> int | None:
    """Return how many bytes a reply has; None: its head does not say."""
    said = head.get(b"content-length") or b""
    return int(said) if said.isdigit() and len(said) < 20 else None


@contextlib.asynccontextmanager
async def _kept_alive(client: Client, reading: Reading) -> AsyncIterator[Callable[[], None]]:
    """Write a comment now and again while nothing comes, where the reading has any; it is told what comes."""
    if not reading.idle():
        yield lambda: None
        return
    clock = asyncio.get_running_loop().time
    last_s = clock()

    def note() -> None:
        nonlocal last_s
        last_s = clock()

    async def write() -> None:
        while True:
            await asyncio.sleep(max(0.0, last_s + IDLE_S - clock()))
            if clock() - last_s >= IDLE_S:
                note()
                if comment := reading.idle():
                    await client.body(comment, more=True)

    writing = asyncio.create_task(write())
    try:
        yield note
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def failure_in(status: int, body: bytes) -> Failure:
    """Return the error in a body, in whatever API's shape."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    error = found.get("error") if isinstance(found, dict) else None
    said = error if isinstance(error, dict) else {}
    texts = {name: value if isinstance(value := said.get(name), str) else None for name in ("message", "param", "code")}
    kind = said.get("type")
    return Failure(
        status,
        texts["message"] or f"the request was refused with {status}",
        kind if isinstance(kind, str) else "invalid_request_error",
        texts["param"],
        texts["code"],
    )


async def read_away(connection: Connection, seconds: float) -> None:
    """Read what is left of a reply that is told, so that its connection can be used again. It need not be there."""
    clock = asyncio.get_running_loop().time
    until_s = clock() + seconds
    try:
        while await connection.read(max(0.0, until_s - clock())):
            pass
    except UpstreamLost:
        connection.close()
