"""Word that something has changed, for as many as listen; who does not listen costs nothing."""

import asyncio


class Pulse:
    """Use it from one event loop. count: of beats so far."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Tell all that wait."""
        self.count += 1
        if self._waiting:
            for each in self._waiting:
                if not each.done():
                    each.set_result(None)
            self._waiting.clear()

    async def wait(self, seconds: float) -> None:
        """Wait for the next beat, and no longer than this."""
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(call)
        try:
            async with asyncio.timeout(seconds):
                await call
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(call)
