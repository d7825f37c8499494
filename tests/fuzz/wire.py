"""A client that sends what it is told to, byte by byte, and reads whatever comes back."""

import asyncio
import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """headers: names in lower case. body: put together, if it came in chunks."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection, opened again where the server has closed it."""

    def __init__(self, port: int, host: str = "127.0.0.1", deadline_s: float = 60.0) -> None:
        self._host = host
        self._port = port
        self._deadline_s = deadline_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        lines = [f"POST {path} HTTP/1.1", "host: glm", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def send(self, *parts: bytes) -> Reply:
        """Send a request in these parts and return the reply."""
        async with asyncio.timeout(self._deadline_s):
            try:
                return await self._exchanged(parts)
            except (ConnectionError, asyncio.IncompleteReadError):
                if self._streams is None:  # a new connection was closed: that is an answer
                    raise
                await self.close()  # the server had closed it after the reply before
                return await self._exchanged(parts)

    async def _exchanged(self, parts: tuple[bytes, ...]) -> Reply:
        is_new = self._streams is None
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**24)
        reader, writer = self._streams
        try:
            for part in parts:
                writer.write(part)
                if len(parts) > 1:
                    await writer.drain()
            reply = await read_reply(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            if is_new:
                await self.close()
            raise
        if reply.headers.get("connection", "").lower() == "close":
            await self.close()
        return reply

    async def close(self) -> None:
        if self._streams is None:
            return
        writer = self._streams[1]
        self._streams = None
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the next reply that is none in between."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        if status >= 200:
            break
    pairs = [line.split(":", 1) for line in head.split("\r\n")[1:] if line]
    headers = {name.lower(): value.strip() for name, value in pairs}
    if "content-length" in headers:
        return Reply(status, headers, await reader.readexactly(int(headers["content-length"])))
    if headers.get("transfer-encoding") == "chunked":
        return Reply(status, headers, await _chunked(reader))
    return Reply(status, headers, b"")


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
