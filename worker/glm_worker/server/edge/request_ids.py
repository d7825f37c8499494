"""Every answer has the id of its request."""

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_worker.server.jobs.context import request_id_of

Names = Callable[[str], tuple[str, ...]]
"""path -> the headers in which clients of this surface look for the id."""


class RequestIds:
    """ASGI middleware that adds the id to every response that lacks it."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                request_id = headers.get("x-request-id") or request_id_of(Headers(scope=scope))
                for name in self._names(scope["path"]):
                    headers.setdefault(name, request_id)
            await send(message)

        await self._app(scope, receive, named_send if scope["type"] == "http" else send)
