"""Groups that say what a test tells them to, over real sockets, and keep what they were asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from glm_edge.frames import (
    CONTINUED_TYPE,
    FRAMES_TYPE,
    Close,
    Continuation,
    Fail,
    Frame,
    Idle,
    Meaning,
    Open,
    Tokens,
    encode,
    read_continued,
)

FRAMES_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % FRAMES_TYPE.encode()
STREAM_HEADERS = [("content-type", "text/event-stream"), ("x-request-id", "r")]
DIE, STALL = object(), object()
Step = bytes | object


def opened(num_answers: int = 1, fingerprint: str = "f", headers: Sequence[tuple[str, str]] = STREAM_HEADERS) -> bytes:
    meaning = Open(
        id="c1",
        created=7,
        seeds=list(range(num_answers)),
        status=200,
        headers=list(headers),
        num_prompt_tokens=3,
        fingerprint=fingerprint,
    )
    return chunk(meaning)


def said(text: str, *ids: int) -> bytes:
    return chunk(Tokens(ids=[(0, list(ids))], state=text.encode()), f"data: {text}\n\n".encode())


def closed(told: bytes = b"data: [DONE]\n\n", num_answer_tokens: int = 2) -> bytes:
    close = Close(
        num_prompt_tokens=3,
        num_cached_tokens=1,
        num_reasoning_tokens=0,
        num_answer_tokens=num_answer_tokens,
        reasons=["stop"],
    )
    return chunk(close, told) + b"0\r\n\r\n"


def too_late() -> bytes:
    """What a worker says of a reply that the deadline of its drain has cut."""
    fail = Fail(status=503, message="the server stopped", type="overloaded", code="overloaded", can_continue=True)
    return chunk(fail, b"data: stopped\n\n") + b"0\r\n\r\n"


def comment() -> bytes:
    return chunk(Idle(), b": waiting\n\n")


def chunk(meaning: Meaning, told: bytes = b"") -> bytes:
    data = encode(Frame(meaning, told))
    return b"%x\r\n%s\r\n" % (len(data), data)


def plain(status: int, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Asked:
    """A request that a group was sent. continuation: that it was asked to go on with."""

    target: str
    headers: dict[str, str]
    body: bytes
    continuation: Continuation | None


@dataclass
class ScriptedGroup:
    """name: as routing knows it. Each request plays the next script; without one it stalls. tls: None: plain HTTP.

    An event in a script is waited for.
    """

    name: str
    scripts: list[Sequence[Step]]
    asked: list[Asked] = field(default_factory=list)
    was_cut: asyncio.Event = field(default_factory=asyncio.Event)  # the reader of a reply went away
    port: int = 0
    tls: ssl.SSLContext | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.asked.append(await _request(reader))
                script = self.scripts.pop(0) if self.scripts else [STALL]
                for step in script:
                    if step is DIE:
                        writer.transport.abort()
                        return
                    if step is STALL:
                        await reader.read()  # until the other side goes away
                        self.was_cut.set()
                        return
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                        continue
                    assert isinstance(step, bytes)
                    writer.write(step)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    continuation = None
    if headers.get("content-type") == CONTINUED_TYPE:
        continuation, body = read_continued(body)
    return Asked(head[0].split(" ")[1], headers, body, continuation)


@contextlib.asynccontextmanager
async def serving(*groups: ScriptedGroup) -> AsyncIterator[None]:
    """Serve all of them, each at a port of its own."""
    servers = []
    try:
        for group in groups:
            servers.append(await asyncio.start_server(group.accept, "127.0.0.1", 0, ssl=group.tls))
            group.port = servers[-1].sockets[0].getsockname()[1]
        yield
    finally:
        for server in servers:
            server.close()
        for group in groups:
            await group.stop()
