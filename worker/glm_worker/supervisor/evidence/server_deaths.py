"""Servers that ended without being told to, and how long to wait before the next. Pure: time is passed in."""

from glm_worker.supervisor.backoff import backoff_s
from glm_worker.supervisor.evidence.causes import Cause

STEADY_S = 10.0  # a server that has listened this long works, whether or not anybody asked it something


class ServerDeaths:
    """One that had answered, or listened for long, is replaced at once; others after a wait that doubles."""

    def __init__(self, base_s: float, max_s: float) -> None:
        """base_s, max_s: the first wait and the longest."""
        self.number = 0
        self.in_a_row = 0  # of servers that never worked
        self.last: Cause | None = None
        self._base_s = base_s
        self._max_s = max_s

    def note(self, cause: Cause, *, listened_s: float | None, has_answered: bool) -> None:
        """Count a death. listened_s: how long its port had been open; None: it never was."""
        is_steady = has_answered or (listened_s is not None and listened_s >= STEADY_S)
        self.number += 1
        self.in_a_row = 0 if is_steady else self.in_a_row + 1
        self.last = cause

    @property
    def wait_s(self) -> float:
        """How long to wait before the next server."""
        return backoff_s(self.in_a_row, self._base_s, self._max_s)
