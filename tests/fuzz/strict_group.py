"""A group that believes nothing: it answers whatever a gateway sends, and notes what a gateway should never send."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_gateway.surfaces.routes import Kind, route

_LINE = re.compile(rb"(POST|GET|DELETE) (/[!-~\x80-\xff]*) HTTP/1\.1")
_NAME = re.compile(rb"[a-z0-9-]+")
_ALLOWED = frozenset(
    b"accept anthropic-beta anthropic-version content-length content-type host openai-beta traceparent tracestate"
    b" user-agent x-glm-auto-threshold x-glm-frames x-glm-gateway x-glm-model x-glm-role x-glm-tenant x-request-id"
    b" x-stainless-lang x-stainless-package-version".split()
)
_KINDS = (Kind.GENERATE, Kind.COUNT, Kind.STORED)
_BODY = b'{"ok": true}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


@dataclass
class StrictGroup:
    """says: headers that only the gateway may say, with their values. violations: sentences.

    num_asked: requests that were whole.
    """

    says: Mapping[bytes, bytes]
    violations: list[str] = field(default_factory=list)
    num_asked: int = 0
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(self._length(head))
                self.num_asked += 1
                writer.write(_ANSWER)
                await writer.drain()
        writer.close()

    def _length(self, head: bytes) -> int:
        """Return the length of the body, and note what is wrong with the head."""
        first, *lines = head[:-4].split(b"\r\n")
        line = _LINE.fullmatch(first)
        path = line[2].partition(b"?")[0].decode("latin-1") if line else ""
        found = route(path)
        is_own = line is not None and line[1] == b"GET" and path == "/openapi.json"
        if not is_own and (line is None or found is None or found.kind not in _KINDS):
            self.violations.append(f"it was asked {first[:200]!r}")
        headers = [each.partition(b": ")[::2] for each in lines]
        names = [name for name, _ in headers]
        for name in names:
            if not _NAME.fullmatch(name) or name not in _ALLOWED:
                self.violations.append(f"it was sent the header {name[:100]!r}")
        for name in {name for name in names if name.startswith(b"x-glm-") or name in (b"host", b"content-length")}:
            if names.count(name) > 1:
                self.violations.append(f"it was sent {name!r} twice")
        said = dict(headers)
        for name, value in () if is_own else self.says.items():
            if said.get(name) != value:
                self.violations.append(f"it was sent {name!r} as {said.get(name)!r}, which is {value!r}")
        if b"\r" in head.replace(b"\r\n", b"") or b"\n" in head.replace(b"\r\n", b"") or b"\x00" in head:
            self.violations.append("it was sent a line break that is none")
        return int(said.get(b"content-length", b"0"))
