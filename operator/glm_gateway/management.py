"""The management port of a gateway: probes and metrics. For the cluster, never for clients."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from glm_gateway.app import Gateway

Message = dict[str, Any]

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Management:
    """A pure ASGI application. is_stopping: it serves what is under way, and wants nothing new."""

    gateway: Gateway
    is_stopping: bool = False
    is_full: str | None = None

    def full(self, reason: str | None) -> None:
        """Note that no further connection is allowed, and why; None: there is room again."""
        self.is_full = reason

    @property
    def obstacle(self) -> str | None:
        """Why nobody new should be sent here; None: nothing. That no group is there is none: requests wait for one."""
        if self.is_stopping:
            return "it stops: it serves what is under way"
        return self.is_full

    async def __call__(
        self, scope: Message, _: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, _TEXT, b"allowed is GET\n"
        match path:
            case "/livez":
                return 200, _TEXT, b"ok\n"
            case "/readyz":
                reason = self.obstacle
                return (200, _TEXT, b"ok\n") if reason is None else (503, _TEXT, f"{reason}\n".encode())
            case "/metrics":
                return 200, _TEXT, self.gateway.telemetry.exposition()
            case "/demand":
                return 200, b"application/json", json.dumps(self._demand()).encode()
        return 404, _TEXT, b"there is /livez, /readyz, /metrics and /demand\n"

    def _demand(self) -> Message:
        models = {model.name: model for model in self.gateway.models.values()}.values()
        return {
            model.name: {"held": model.demand.num_held, "oldest_s": round(model.demand.oldest_s, 3)} for model in models
        }
