"""The management port of a gateway as the operator needs it: GET /demand?stream=1 over real HTTP, told what to say."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from glm_operator.cluster.gateways import DEMAND_PATH

Json = dict[str, Any]


def a_model(deployment: str | None = "chat", **said: Any) -> Json:
    """Return what is said of a model that was never asked for."""
    named = {} if deployment is None else {"deployment": deployment}
    return {"held": 0, "oldest_s": 0.0, "idle_s": None, "running": 0, **named, **said}


@dataclass
class GatewayPort:
    """One gateway. What it says goes to every stream that is open, and first to each that opens."""

    up_s: float = 86_400.0
    models: dict[str, Json] = field(default_factory=lambda: {"glm-nano": a_model()})
    status: int = 200
    is_silent: bool = False  # streams stay open, and nothing is said
    num_asked: int = 0
    num_streams: int = 0  # that were ever opened
    host: str = ""
    port: int = 0
    streams: list[web.StreamResponse] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{DEMAND_PATH}"

    def line(self) -> bytes:
        return json.dumps({"models": self.models, "up_s": self.up_s}).encode() + b"\n"

    async def say(self, **said: Any) -> None:
        """Say something else of the first model."""
        next(iter(self.models.values())).update(said)
        await self.send(self.line())

    async def send(self, data: bytes) -> None:
        """Send bytes to every stream that is open."""
        if self.is_silent:
            return
        for stream in [*self.streams]:
            try:
                await stream.write(data)
            except ConnectionError:
                self.streams.remove(stream)

    async def cut(self) -> None:
        """End every stream, as a container that is started again."""
        for stream in [*self.streams]:
            self.streams.remove(stream)
            if stream._req is not None and stream._req.transport is not None:
                stream._req.transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path_qs == DEMAND_PATH
        self.num_asked += 1
        if self.status != 200:
            return web.Response(status=self.status, text="not now")
        self.num_streams += 1
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        self.streams.append(stream)
        if not self.is_silent:
            await stream.write(self.line())
        try:
            await asyncio.Event().wait()  # until the client goes
        finally:
            with contextlib.suppress(ValueError):
                self.streams.remove(stream)
        return stream


@contextlib.asynccontextmanager
async def serving(gateway: GatewayPort, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[GatewayPort]:
    """Serve it. port: 0 for any that is free."""
    application = web.Application()
    application.add_routes([web.get("/demand", gateway._answer)])
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        gateway.host, gateway.port = host, runner.addresses[0][1]
        yield gateway
    finally:
        await gateway.cut()
        await runner.cleanup()
