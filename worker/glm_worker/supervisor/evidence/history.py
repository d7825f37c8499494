"""What the group went through: generations, failures and counters, as /group shows them. Pure: time is passed in.

Times are seconds of the wall clock, shown as RFC 3339 in UTC.
"""

from collections import deque
from datetime import UTC, datetime
from typing import Literal

import msgspec

from glm_worker.supervisor.evidence.causes import Cause

State = Literal["waiting_for_peers", "starting", "serving", "backing_off", "draining"]
STATES: tuple[State, ...] = ("waiting_for_peers", "starting", "serving", "backing_off", "draining")

LENGTH = 20
STEADY_S = 10.0  # a generation that has served this long works, whether or not anybody asked it something


class Generation(msgspec.Struct, kw_only=True):
    """One try to serve."""

    id: str
    started_at: str
    ready_at: str | None = None
    ended_at: str | None = None
    cause: Cause | None = None


class History:
    """The last generations and how they ended.

    One that ended before it was ready is a failed start, and so is one that ended right after, with nothing answered:
    a rank that fails at its first real step is no rank that dies now and then.
    """

    def __init__(self, born: float = 0.0) -> None:
        """born: when the group began to start for the first time, as far as this process knows."""
        self.starting_since = born  # or the last time it did, when it serves
        self.generations: deque[Generation] = deque(maxlen=LENGTH)
        self.num_generations = 0
        self.consecutive_start_failures = 0
        self.deaths_while_serving = 0
        self._ready_s = 0.0  # of the current generation
        self._serving_since = 0.0
        self._has_answered = False

    @property
    def serving_since(self) -> float:
        """Since when the current generation serves; only while one does."""
        return self._serving_since

    @property
    def current(self) -> Generation | None:
        """The generation that has not ended."""
        return self.generations[-1] if self.generations and self.generations[-1].ended_at is None else None

    def begin(self, generation: str, now: float) -> None:
        assert self.current is None
        self.num_generations += 1
        self.generations.append(Generation(id=generation, started_at=rfc3339(now)))

    def serve(self, now: float) -> None:
        assert self.current is not None
        self.current.ready_at = rfc3339(now)
        self._ready_s, self._has_answered = now, False
        self._serving_since = now

    def resume(self, now: float) -> None:
        """Note that the current generation serves again, with another server."""
        self._serving_since = now

    def interrupt(self, now: float) -> None:
        """Note that the generation that served does so no more: another starts, or another server for it."""
        self.starting_since = now

    def answer(self, now: float) -> None:
        """Note that the generation that serves has finished a request."""
        self._has_answered = True
        self.look(now)

    def look(self, now: float) -> None:
        """Forget failed starts once the generation that serves has shown that it works. Call it now and then."""
        if self.is_steady(now):
            self.consecutive_start_failures = 0

    def is_steady(self, now: float) -> bool:
        """Return whether the current generation has shown that it works."""
        is_ready = self.current is not None and self.current.ready_at is not None
        return is_ready and (self._has_answered or now - self._ready_s >= STEADY_S)

    def end(self, cause: Cause, now: float, *, planned: bool = False) -> None:
        """Close the current generation. planned: a pod was told to go, which is no death.

        A pod that is lost while the generation starts is no failure of the start: its return is waited for anyway.
        """
        assert self.current is not None
        self.look(now)
        generation, is_steady = self.current, self.is_steady(now)
        generation.cause = cause
        generation.ended_at = rfc3339(now)
        if generation.ready_at is not None:
            self.deaths_while_serving += not planned
        if not is_steady and cause.reason != "peer_lost" and not planned:
            self.consecutive_start_failures += 1


def rfc3339(seconds: float) -> str:
    """Return a moment of the wall clock as Kubernetes writes it, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
