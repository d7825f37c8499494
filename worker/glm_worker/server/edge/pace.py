"""How fast bytes of long bodies are taken in, all bodies together.

To take in a part of a body is work of the event loop, and clients of long ones send as fast as they are read. Some
dozens of them at once keep the loop busy, and at each of its turns all streams wait for a part of each body. At a
bounded rate the transport holds the senders back instead, so that they cost neither the loop nor the cores much. A body
that comes in one part, as a fast one below 256 KiB does, waits for nothing.

No part waits for long, however many there are: then more is taken in. Else a gateway, which gives a request a bounded
time to be sent, would take this server for a broken one: tests/contract/test_body_waits.py sums what a body may wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

BYTES_PER_S = 32 * 2**20  # a prompt of a long context takes 20 ms; what is made of it takes longer
SHORTEST_S = 0.001  # what is due sooner is due now
LONGEST_S = 0.25


class Pace:
    """Use it in one event loop."""

    def __init__(
        self,
        bytes_per_s: float = BYTES_PER_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = 0.0

    async def after(self, num_bytes: int) -> None:
        """Wait for as long as these bytes take, and for those that came before them."""
        now_s = self._clock()
        self._free_at_s = min(max(self._free_at_s, now_s) + num_bytes / self._bytes_per_s, now_s + LONGEST_S)
        if (rest_s := self._free_at_s - now_s) > SHORTEST_S:
            await self._sleep(rest_s)
