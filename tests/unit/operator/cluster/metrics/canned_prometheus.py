"""A server on loopback that answers as it is told: for what a real Prometheus would have to be broken to say."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


@dataclass
class Canned:
    """url: its address. asked: what came, in order. answer: what it answers now."""

    url: str = ""
    asked: list[web.Request] = field(default_factory=list)
    answer: Answer | None = None

    def says(self, *, status: int = 200, text: str = "", headers: dict[str, str] | None = None) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text=text, headers=headers)

        self.answer = answer

    def says_json(self, body: object, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(body, status=status)

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        assert self.answer is not None
        return await self.answer(request)


@asynccontextmanager
async def canned_prometheus() -> AsyncIterator[Canned]:
    canned = Canned()
    canned.says_json(EMPTY)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", canned.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        canned.url = f"http://{host}:{port}"
        yield canned
    finally:
        await runner.cleanup()
