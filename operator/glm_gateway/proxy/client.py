"""The reply to one request as its client gets it: one head, bytes, and one end, whoever writes it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from glm_edge.errors.failure import Failure
from glm_gateway.proxy.heads import RawHeaders, reply_headers

Send = Callable[[dict[str, Any]], Awaitable[None]]
Added = Sequence[tuple[bytes, bytes]]


class Telling(Protocol):
    """How an error is told in the words of an API: as a whole reply, or as the last events of a stream.

    hear: told what the client of a stream reads, for some APIs say at its end what came before.
    """

    def body(self, failure: Failure) -> tuple[int, bytes]: ...
    def hear(self, told: bytes) -> None: ...
    def event(self, failure: Failure) -> bytes: ...


class BrokenReply(Exception):
    """A plain reply broke off in its middle: only the end of the connection can tell the client."""


def _nothing() -> Added:
    return ()


@dataclass
class Client:
    """added: returns headers of ours, for the head. streams: it reads events. status: 0: it has no head yet.

    is_over: all was told.
    """

    send: Send
    telling: Telling
    added: Callable[[], Added]
    streams: bool
    status: int = 0
    is_over: bool = False

    @property
    def has_started(self) -> bool:
        return self.status > 0

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head, once: who held the request until there was a group may have done so."""
        if self.has_started:
            return
        self.status = status
        lengths = [(name, value) for name, value in headers if name == b"content-length"]
        added, self.added = self.added(), _nothing  # whoever adds knows this client: the two would keep each other
        told = [*reply_headers(headers, added), *lengths]
        await self.send({"type": "http.response.start", "status": status, "headers": told})

    async def body(self, data: bytes, *, more: bool) -> None:
        self.is_over = not more
        if self.streams:
            self.telling.hear(data)
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def fail(self, failure: Failure) -> None:
        """Say that there is no more: as an HTTP error where that can still be one. Raises BrokenReply."""
        if not self.has_started:
            status, body = self.telling.body(failure)
            headers = [(name.encode(), value.encode()) for name, value in failure.headers.items()]
            length = (b"content-length", str(len(body)).encode())
            await self.start(status, [(b"content-type", b"application/json"), length, *headers])
            await self.body(body, more=False)
        elif self.streams:
            await self.body(self.telling.event(failure), more=False)
        else:
            raise BrokenReply(failure.message)
