"""When a pod that ended by itself is started again: at once, then later and later. Pure.

A pod that served for a while before is one that merely died. One that ends again and again lacks something that
starting it does not bring, and every start takes a core for seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 120.0
"""A pod is tried this often for ever: what it lacks may come."""

SERVED_S = 60.0
"""A pod whose group served for this long without a break is well again."""


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that ended by itself, how often in a row, and what became of it."""

    pod: str
    token: str  # of the process that ended last
    count: int
    again_at: float  # unix time at which it is started again
    serves_since: float | None = None  # unix time; None: its group does not serve


@dataclass(frozen=True)
class Seen:
    """One pod as it was looked at."""

    pod: str
    token: str
    is_alive: bool
    serves: bool  # the whole group does


def pause_s(count: int) -> float:
    """Return how long a pod stays down that has ended this often in a row: not at all after the first time."""
    return 0.0 if count <= 1 else min(FIRST_PAUSE_S * 2.0 ** min(count - 2, 30), MAX_PAUSE_S)


def looked(crashes: Sequence[Crash], pods: Iterable[Seen], now_s: float) -> list[Crash]:
    """Return the crashes after a look at the pods that are to run. Those of other pods are forgotten."""
    before = {crash.pod: crash for crash in crashes}
    after = (_looked(before.get(pod.pod), pod, now_s) for pod in pods)
    return [crash for crash in after if crash is not None]


def resting(crashes: Iterable[Crash], now_s: float) -> set[str]:
    """Return the names of the pods that are not started yet."""
    return {crash.pod for crash in crashes if crash.again_at > now_s}


def _looked(crash: Crash | None, pod: Seen, now_s: float) -> Crash | None:
    if not pod.is_alive:
        if crash is not None and crash.token == pod.token:
            return crash
        count = 1 if crash is None else crash.count + 1
        return Crash(pod=pod.pod, token=pod.token, count=count, again_at=now_s + pause_s(count))
    if crash is None:
        return None
    if not pod.serves:
        return msgspec.structs.replace(crash, serves_since=None)
    since_s = now_s if crash.serves_since is None else crash.serves_since
    return msgspec.structs.replace(crash, serves_since=since_s) if now_s - since_s < SERVED_S else None
