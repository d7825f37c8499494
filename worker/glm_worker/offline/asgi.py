"""Requests to the server's application without a connection: the same surfaces, checks and errors as over HTTP."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Scope

Take = Callable[[bytes], Awaitable[object]]


@dataclass
class Reply:
    """What came of a request. body: the whole of it, empty where it was taken in parts."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def is_events(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


async def ask(app: ASGIApp, path: str, body: bytes, take: Take | None = None) -> Reply:
    """Post a body to a path and return the reply. take: gets the parts of a stream as they come.

    Cancelled, it leaves nothing of the request in flight.
    """
    reply, parts = Reply(), [body]
    left = asyncio.Event()  # of a client that never leaves

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        elif take is not None and reply.is_events:
            await take(message.get("body", b""))
        else:
            reply.body += message.get("body", b"")

    await app(_scope(path, body), receive, send)
    return reply


def _scope(path: str, body: bytes) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": None,
        "server": None,
    }
