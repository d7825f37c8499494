"""What was used of one scope's limits so far: values that a lock or a script keeps whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from glm_gateway.limits.limit import Limits, Measure

MINUTE_S = 60.0
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Bucket:
    """level: what may be used at the moment `at`; less than 0 after a request that took more than it had reserved."""

    level: float
    at: float

    def level_at(self, now: float, most: int) -> float:
        """Return the level at a later moment: a bucket fills within a minute. A clock that goes back adds nothing.

        A bucket that holds nothing is never owed anything: no time would pay it back.
        """
        if not most:
            return 0.0
        return min(float(most), self.level + max(0.0, now - self.at) * most / MINUTE_S)


@dataclass(frozen=True)
class Counters:
    """month: of `spent`, as in 2026-11; another month begins at nothing. spent: settled and reserved together."""

    buckets: Mapping[Measure, Bucket] = field(default_factory=dict)
    num_running: int = 0
    month: str = ""
    spent: int = 0

    def level(self, measure: Measure, limits: Limits, now: float) -> float:
        most = limits.per_minute[measure]
        bucket = self.buckets.get(measure)
        return float(most) if bucket is None else bucket.level_at(now, most)

    def spent_in(self, month: str) -> int:
        return self.spent if self.month == month else 0

    def take(self, amounts: Mapping[Measure, float], limits: Limits, now: float) -> "Counters":
        """Return the counters after as much was taken; amounts below 0 are given back, up to what a bucket holds."""
        taken = {
            measure: Bucket(min(float(limits.per_minute[measure]), self.level(measure, limits, now) - amount), now)
            for measure, amount in amounts.items()
            if measure in limits.per_minute
        }
        return Counters({**self.buckets, **taken}, self.num_running, self.month, self.spent)

    def spend(self, expense: int, month: str) -> "Counters":
        """Return the counters after an expense in a month, below 0 to give back. A month that is over is left alone."""
        if self.month > month or (expense < 0 and self.month != month):
            return self
        return Counters(self.buckets, self.num_running, month, max(0, self.spent_in(month) + expense))

    def running(self, change: int) -> "Counters":
        """Return the counters with more or fewer requests that run, never fewer than none."""
        return Counters(self.buckets, max(0, self.num_running + change), self.month, self.spent)


def month_of(now: float) -> str:
    """Return the calendar month of a moment, in UTC."""
    return _month_of_day(int(now // DAY_S))


@lru_cache(maxsize=64)  # each request asks for it four times
def _month_of_day(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_S, UTC):%Y-%m}"


def month_after(now: float) -> float:
    """Return the moment at which the next calendar month begins, in UTC."""
    this = datetime.fromtimestamp(now, UTC)
    year, month = (this.year + 1, 1) if this.month == 12 else (this.year, this.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
