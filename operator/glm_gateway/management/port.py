"""The management port as a pure ASGI application."""

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from glm_gateway.app import Gateway
from glm_gateway.management.demand import Demands
from glm_gateway.management.standing import Standing
from glm_gateway.management.state import state
from glm_gateway.models.model import Model

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 16
"""Of demand at once: replicas of an operator, and people who look."""

_TEXT = b"text/plain; charset=utf-8"
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_JSON = b"application/json"
_LINES = b"application/x-ndjson"
_PAGES = "there is /livez, /readyz, /metrics, /state and /demand"


@dataclass
class Management:
    """models: that run, those that are taken out of the file and still have requests as well. num_keys: that are good.

    is_open: whether the port of clients is.
    """

    gateway: Gateway
    models: Callable[[], Iterable[Model]]
    demands: Demands
    standing: Standing
    num_keys: Callable[[], int | None] = lambda: None
    is_open: Callable[[], bool] = lambda: True
    is_full: str | None = None
    _num_streams: int = 0

    def full(self, reason: str | None) -> None:
        """Note that no further connection is allowed, and why; None: there is room again."""
        self.is_full = reason

    @property
    def obstacle(self) -> str | None:
        """Why nobody new should be sent here; None: nothing. That no group is there is none: requests wait for one."""
        if self.gateway.is_stopping:
            return f"it stops: it serves what is under way (requests: {self.gateway.num_running})"
        if not self.is_open():
            return "it starts: the port of clients is not open yet"
        return self.is_full

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        streams = query.get("stream", ["0"])[-1] in ("1", "true")
        pause = query.get("least_s", ["0"])[-1]
        least_s = _seconds(pause)
        if path == "/demand" and least_s is None:
            status, kind, body = 400, _TEXT, f"least_s is {pause[:100]!a}; it is seconds, 0 or more\n".encode()
        elif path == "/demand" and method == "GET" and streams and self._num_streams < MAX_STREAMS:
            await self._stream(receive, send, least_s or 0.0)
            return
        else:
            status, kind, body = self._answer(method, path, streams=streams)
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    def _answer(self, method: str, path: str, *, streams: bool) -> tuple[int, bytes, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, _TEXT, b"allowed is GET\n"
        match path:
            case "/livez":
                return 200, _TEXT, b"ok\n"
            case "/readyz":
                reason = self.obstacle
                return (200, _TEXT, b"ok\n") if reason is None else (503, _TEXT, f"{reason}\n".encode())
            case "/metrics":
                return 200, _METRICS, self.gateway.telemetry.exposition()
            case "/state":
                return 200, _JSON, self._state()
            case "/demand" if streams and method == "GET":
                return 503, _TEXT, f"{MAX_STREAMS} streams of demand are open, which is what is allowed\n".encode()
            case "/demand":
                return 200, _JSON, self.demands.page()
        return 404, _TEXT, f"{path[:100]!a} is not here; {_PAGES}\n".encode()

    def _state(self) -> bytes:
        told = state(
            self.models(),
            self.standing,
            num_keys=self.num_keys(),
            num_running=self.gateway.num_running,
            num_cut=self.gateway.num_cut,
        )
        return json.dumps(told).encode()

    async def _stream(self, receive: Receive, send: Send, least_s: float) -> None:
        """Tell demand until the client goes away."""
        self._num_streams += 1
        telling = asyncio.create_task(self._tell(send, least_s))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._num_streams -= 1
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, send: Send, least_s: float) -> None:
        headers = [(b"content-type", _LINES), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with contextlib.aclosing(self.demands.lines(least_s)) as lines:
            async for line in lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < math.inf else None


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
