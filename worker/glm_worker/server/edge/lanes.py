"""Where large bodies are read: in two threads beside the loop, and in each of them one body after the other.

To read a body is to hold Python's lock, for up to 20 ms at a stretch. A single thread that does so leaves the lock to
the loop after each stretch. Of several, the next would often have it before the loop, and all streams would wait for
one thread after the other. So there is one thread, and a second one for bodies of megabytes: those take seconds, for
which the others need not wait.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from glm_worker.server.edge.memory import Memory

Result = TypeVar("Result")

HUGE_BYTES = 2**20


class Lanes:
    """Two threads, started at need. Use it in one event loop."""

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self._usual, self._huge = (ThreadPoolExecutor(1, f"reads-{what}-bodies") for what in ("large", "huge"))

    async def run(self, work: Callable[[], Result], num_bytes: int) -> Result:
        """Return what the work returns, or raise what it raises, when its turn is over. num_bytes: of the body."""
        lane = self._huge if num_bytes > HUGE_BYTES else self._usual
        try:
            return await asyncio.get_running_loop().run_in_executor(lane, copy_context().run, work)
        finally:
            self._memory.freed(num_bytes)
