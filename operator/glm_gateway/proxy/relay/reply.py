"""The reply as its client reads it: a stream's events as they come, a whole reply at its end, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from glm_edge.errors.failure import Failure
from glm_edge.frames import Open
from glm_gateway.proxy.client import Client
from glm_gateway.proxy.relay.result import Hooks, Result

EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that know it pass events on as they come
)


@dataclass
class Reply:
    """One reply, whoever writes it."""

    client: Client
    result: Result
    hooks: Hooks
    _untold: list[bytes] = field(default_factory=list)  # of frames that are taken

    async def open(self, opened: Open) -> None:
        """Begin a stream, unless it was begun. A whole reply has its head when all of it is there."""
        if self.client.streams:
            await self.client.start(opened.status, _encoded(opened.headers))

    def take(self, told: bytes) -> None:
        """Keep the events of a frame for the next `flush`."""
        if told and self.client.streams:
            self._untold.append(told)

    async def flush(self) -> None:
        """Tell the client of a stream, in one write, what came since the last time."""
        told, is_over = b"".join(self._untold), self.result.progress.is_over
        self._untold.clear()
        if self.client.streams and (told or is_over) and not self.client.is_over:
            await self.client.body(told, more=not is_over)

    async def tell_whole(self, told: bytes) -> None:
        """Tell a reply that does not stream."""
        opened = self.result.progress.opened
        headers = [] if opened is None else _encoded(opened.headers)
        length = (b"content-length", str(len(told)).encode())
        await self.client.start(200 if opened is None else opened.status, [*headers, length])
        await self.client.body(told, more=False)

    async def tell_waiting(self, comment: bytes) -> None:
        """Tell the client of a stream for what it waits. Its head goes out with the first such word."""
        await self.client.start(200, EVENT_STREAM)
        await self.client.body(comment, more=True)

    async def fail(self, failure: Failure) -> None:
        """Tell the client that there is no more. Raises BrokenReply."""
        self.result.fail(failure)
        await self.hooks.ended()
        await self.client.fail(failure)


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
