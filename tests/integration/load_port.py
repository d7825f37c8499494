"""The management port of a group as a gateway hears it: GET /load, and what it says is what a test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

AGAIN_S = 1.0  # a line comes each second, as from a worker


@dataclass
class LoadPort:
    """said: the last line."""

    port: int = 0
    said: dict[str, Any] = field(default_factory=lambda: {"ready": True, "leaving": False, "incarnation": "i-1"})
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, **fields: Any) -> None:
        self.said |= fields
        self._changed.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        while True:
            self._changed.clear()
            await stream.write(json.dumps(self.said).encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._changed.wait()


@contextlib.asynccontextmanager
async def a_load_port() -> AsyncIterator[LoadPort]:
    """Serve it, for one listener, while this is entered."""
    found = LoadPort()
    app = web.Application()
    app.router.add_get("/load", found.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.port = runner.addresses[0][1]
        yield found
    finally:
        await runner.cleanup()
