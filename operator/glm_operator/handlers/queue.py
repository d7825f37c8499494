"""A queue of deployments that coalesces: ten events are one pass, and no deployment has two passes at once.

A key that is added while its pass runs gets another one afterwards. A key that failed waits longer each time, with
jitter, by itself: nothing it does holds up the others. Time comes from the event loop.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

BACKOFF_BASE_S = 0.5
BACKOFF_MAX_S = 60.0


@dataclass(frozen=True, order=True)
class Key:
    """Names one deployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Queue:
    """What is due, what is being done, and what is to be done later."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._due: dict[Key, None] = {}  # in order of arrival
        self._running: set[Key] = set()
        self._urgent: set[Key] = set()  # of those that run: edited since they were taken
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Note that a deployment is due now. One that backs off keeps waiting, unless this is urgent."""
        if key in self._failures and key in self._later and not urgent:
            return
        if urgent and key in self._running:
            self._urgent.add(key)
        self._put(key)

    def add_later(self, key: Key, delay_s: float) -> None:
        """Note that a deployment is due in a while, at the earlier of two such times."""
        handle = self._later.get(key)
        due_at = asyncio.get_running_loop().time() + delay_s
        if handle is not None:
            if handle.when() <= due_at:
                return
            handle.cancel()
        self._later[key] = asyncio.get_running_loop().call_at(due_at, self._put, key)

    async def take(self) -> Key:
        """Wait for a deployment that is due and has no pass running; done(), retry() or forget() must follow."""
        while True:
            for key in self._due:
                if key not in self._running:
                    del self._due[key]
                    self._running.add(key)
                    return key
            self._wake.clear()
            await self._wake.wait()

    def done(self, key: Key) -> None:
        """End a pass that went well."""
        self._failures.pop(key, None)
        self._end(key)

    def retry(self, key: Key) -> float:
        """End a pass that failed; return the seconds until the next one, which double each time.

        0 where an edit has arrived meanwhile: the pass that failed did not know of it.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if key in self._urgent:
            self._end(key)
            return 0.0
        ceiling = min(BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16), BACKOFF_MAX_S)
        delay_s = ceiling * (0.5 + self._jitter() / 2)
        self._due.pop(key, None)
        pending = self._later.pop(key, None)
        if pending is not None:
            pending.cancel()
        self.add_later(key, delay_s)
        self._end(key)
        return delay_s

    def forget(self, key: Key) -> None:
        """End a pass over a deployment that is gone. An event that arrived meanwhile still counts."""
        self._failures.pop(key, None)
        pending = self._later.pop(key, None)
        if pending is not None:
            pending.cancel()
        self._end(key)

    def _put(self, key: Key) -> None:
        handle = self._later.pop(key, None)
        if handle is not None:
            handle.cancel()
        self._due.setdefault(key)
        self._wake.set()

    def _end(self, key: Key) -> None:
        self._running.discard(key)
        self._urgent.discard(key)
        self._wake.set()
