"""The events of a response that is made in the background: kept, and followed by whoever asks, as often as wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from glm_worker.server.flights.exchange import KEEP_ALIVE_S
from glm_worker.server.flights.replies import Event

_WAITING = b": waiting\n\n"


class EventLog:
    """The n-th event has sequence number n. tells_reasoning: whether its client may read reasoning.

    on_read: called when somebody was given all of it.
    """

    def __init__(self, *, tells_reasoning: bool, on_read: Callable[[], None] = lambda: None) -> None:
        self.tells_reasoning = tells_reasoning
        self._on_read = on_read
        self._lines: list[bytes] = []
        self._grown = asyncio.Event()  # set, and replaced, when there is more, or it is over
        self._is_over = False
        self.num_bytes = 0

    def add(self, events: Iterable[Event]) -> None:
        lines = [event.line for event in events]
        self._lines += lines
        self.num_bytes += sum(map(len, lines))
        self._wake()

    def close(self) -> None:
        """Note that there will be no more."""
        self._is_over = True
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Give the events past number `after`, those to come as well, and comments while there are none."""
        given = after + 1
        while True:
            grown, is_over = self._grown, self._is_over
            if new := self._lines[given:]:
                given += len(new)
                yield b"".join(new)
            elif is_over:
                self._on_read()
                return
            else:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await grown.wait()
                except TimeoutError:
                    yield _WAITING

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
