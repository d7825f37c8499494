"""A queue of deployments that coalesces: ten events are one pass, and no deployment has two passes at once.

What is more urgent comes first, and within one urgency namespaces take turns: a thousand deployments of one team do not
make another team wait. Nor do passes that hang: some workers take edits alone. A key that is added while its pass runs
gets another one afterwards. A key that failed waits longer each time, with jitter, by itself: nothing it does holds up
the others. Time comes from the event loop.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

BACKOFF_BASE_S = 0.5
BACKOFF_MAX_S = 60.0


class Urgency(IntEnum):
    """Why a deployment is due; the lower comes first."""

    EDIT = 0  # somebody waits for it
    EVENT = 1  # something it owns has changed
    RESYNC = 2  # nothing is known to have changed


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
        self._due = {urgency: _Turns() for urgency in Urgency}
        self._running: set[Key] = set()
        self._edited: set[Key] = set()  # of those that run: edited since they were taken
        self._edits: set[Key] = set()  # of those that run: taken for an edit
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(turns) for turns in self._due.values())

    def add(self, key: Key, urgency: Urgency = Urgency.EVENT) -> None:
        """Note that a deployment is due now. One that backs off keeps waiting, unless it was edited."""
        if key in self._failures and key in self._later and urgency is not Urgency.EDIT:
            return
        if urgency is Urgency.EDIT and key in self._running:
            self._edited.add(key)
        self._put(key, urgency)

    def add_later(self, key: Key, delay_s: float, urgency: Urgency = Urgency.EVENT) -> None:
        """Note that a deployment is due in a while, at the earlier of two such times."""
        handle = self._later.get(key)
        due_at = asyncio.get_running_loop().time() + delay_s
        if handle is not None:
            if handle.when() <= due_at:
                return
            handle.cancel()
        self._later[key] = asyncio.get_running_loop().call_at(due_at, self._put, key, urgency)

    async def take(self, least: Urgency = Urgency.RESYNC) -> Key:
        """Wait for a deployment that is due and has no pass running; done(), retry() or forget() must follow.

        least: what is less urgent is left to others.
        """
        while True:
            for urgency, turns in self._due.items():
                key = turns.take(self._running) if urgency <= least else None
                if key is not None:
                    self._running.add(key)
                    if urgency is Urgency.EDIT:
                        self._edits.add(key)
                    return key
            wake = self._wake
            await wake.wait()

    async def without_edits(self) -> None:
        """Wait until no pass runs for an edit."""
        while self._edits:
            wake = self._wake
            await wake.wait()

    def done(self, key: Key) -> None:
        """End a pass that went well."""
        self._failures.pop(key, None)
        self._end(key)

    def retry(self, key: Key) -> float:
        """End a pass that failed; return the seconds until the next one, which double each time.

        0 where an edit has arrived meanwhile: the pass that failed did not know of it.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if key in self._edited:
            self._end(key)
            return 0.0
        ceiling = min(BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16), BACKOFF_MAX_S)
        delay_s = ceiling * (0.5 + self._jitter() / 2)
        self._drop(key)
        self._cancel(key)
        self.add_later(key, delay_s)
        self._end(key)
        return delay_s

    def forget(self, key: Key) -> None:
        """End a pass over a deployment that is gone. An event that arrived meanwhile still counts."""
        self._failures.pop(key, None)
        self._cancel(key)
        self._end(key)

    def _put(self, key: Key, urgency: Urgency) -> None:
        self._cancel(key)
        if not any(key in self._due[other] for other in Urgency if other <= urgency):
            self._drop(key)
            self._due[urgency].add(key)
        self._wake_all()

    def _drop(self, key: Key) -> None:
        for turns in self._due.values():
            turns.drop(key)

    def _cancel(self, key: Key) -> None:
        handle = self._later.pop(key, None)
        if handle is not None:
            handle.cancel()

    def _end(self, key: Key) -> None:
        self._running.discard(key)
        self._edited.discard(key)
        self._edits.discard(key)
        self._wake_all()

    def _wake_all(self) -> None:
        """Let everybody who waits look again; who finds nothing waits for the next time."""
        self._wake.set()
        self._wake = asyncio.Event()


class _Turns:
    """Keys of one urgency, in order of arrival within their namespace; namespaces take turns."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[Key, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_namespace.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._by_namespace.get(key.namespace, ())

    def add(self, key: Key) -> None:
        self._by_namespace.setdefault(key.namespace, {})[key] = None

    def drop(self, key: Key) -> None:
        keys = self._by_namespace.get(key.namespace)
        if keys is not None and keys.pop(key, key) is None and not keys:
            del self._by_namespace[key.namespace]

    def take(self, running: set[Key]) -> Key | None:
        """Remove and return the next key that has no pass running; its namespace goes to the end."""
        for key in self._next_keys(running):
            self.drop(key)
            if rest := self._by_namespace.pop(key.namespace, None):
                self._by_namespace[key.namespace] = rest
            return key
        return None

    def _next_keys(self, running: set[Key]) -> Iterator[Key]:
        for keys in list(self._by_namespace.values()):
            yield from (key for key in list(keys) if key not in running)
