"""How the group stands: which generation it has, whether that serves, and what came before. Pure: time is passed in.

Written by the attempts to serve, read by whatever tells of the group.
"""

from glm_worker.messages import Unavailable
from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.history import History
from glm_worker.supervisor.evidence.watchdog import RankReport

READY_GRACE_S = 10.0  # an interruption this short changes no readiness: requests wait in the server's journal


class Standing:
    """now_s is of the monotonic clock, now of the wall clock."""

    def __init__(self, now_s: float, now: float) -> None:
        self.history = History(now)
        self.generation: str | None = None
        self.is_serving = False
        self.retry_at_s: float | None = None  # while the next attempt is put off
        self.cold_start_s: float | None = None  # from the start of this pod until it first served
        self.reports: list[RankReport] = []  # of every rank of the generation
        self._born_s = now_s
        self.served_until_s: float | None = None  # before the interruption that lasts, or was the last
        self.unavailable: Unavailable | None = None  # why no generation will serve soon

    @property
    def has_loaded(self) -> bool:
        """Whether a generation has shown that its ranks can serve, with or without a server before them."""
        current = self.history.current
        return current is not None and current.ready_at is not None

    def was_serving_at(self, now_s: float) -> bool:
        """Return whether the group serves, or is interrupted so shortly that requests may wait."""
        recently = self.served_until_s is not None and now_s - self.served_until_s < READY_GRACE_S
        return self.is_serving or recently

    def begin(self, generation: str, now: float) -> None:
        """Note that a generation starts."""
        self.history.begin(generation, now)
        self.generation = generation

    def serve(self, now_s: float, now: float) -> None:
        """Note that the generation serves, or serves again."""
        self.is_serving = True
        if self.cold_start_s is None:
            self.cold_start_s = now_s - self._born_s
        if self.has_loaded:
            self.history.resume(now)
        else:
            self.history.serve(now)

    def interrupt(self, now_s: float, now: float) -> None:
        """Note that the generation does not serve any more, for good or until it has another server."""
        if not self.is_serving:
            return
        self.is_serving = False
        is_steady = self.history.is_steady(now)
        self.history.interrupt(now)
        if is_steady:
            self.served_until_s = now_s

    def end(self, cause: Cause, now: float, *, planned: bool) -> None:
        """Note that every rank of the generation is dead."""
        self.history.end(cause, now, planned=planned)
        self.generation = None
        self.is_serving = False
        self.reports = []

    def forget_service(self) -> None:
        """Be not ready before the next generation, however short that takes."""
        self.served_until_s = None
