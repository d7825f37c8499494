"""That there is something to tell, from the engine's side to the one task that tells it.

An asyncio.Event under a timeout makes a dozen objects and a timer each time that it is waited for: for every token of
every stream. This makes one future, and keeps one timer.
"""

import asyncio


class News:
    """Set by whoever has something, waited for by one task at a time. Must be used inside of one running loop."""

    __slots__ = ("_due_s", "_loop", "_timer", "_waiter", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # when the wait ends without news, on the loop's clock

    def set(self) -> None:
        self.is_set = True
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(True)

    def clear(self) -> None:
        self.is_set = False

    async def wait(self, within_s: float | None = None) -> bool:
        """Wait for news, and return whether they came within so many seconds. None: however long it takes."""
        if self.is_set:
            return True
        assert self._waiter is None, "somebody waits already"
        loop = self._loop = self._loop or asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        if within_s is not None:
            self._due_s = loop.time() + within_s
            if self._timer is None:
                self._timer = loop.call_at(self._due_s, self._ring, loop)
            elif self._timer.when() > self._due_s:
                self._timer.cancel()
                self._timer = loop.call_at(self._due_s, self._ring, loop)
        else:
            self._due_s = float("inf")
        try:
            return bool(await waiter)
        finally:
            self._waiter = None

    def close(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait that is over; a timer that is early for the one of now is set again."""
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done() or self._due_s == float("inf"):
            return
        if loop.time() < self._due_s:
            self._timer = loop.call_at(self._due_s, self._ring, loop)
        else:
            waiter.set_result(False)
