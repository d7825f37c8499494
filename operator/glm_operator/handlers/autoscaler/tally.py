"""What became of decisions: the last changes, how often each was made, the most groups wanted within a day. Pure."""

from collections import Counter, deque
from collections.abc import Mapping

from glm_operator.autoscale.decision import Decision
from glm_operator.status.measured import Change

KEPT = 10
HOUR_S = 3600.0
DAY_HOURS = 24


class Tally:
    """Of one deployment, since the operator began."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=KEPT)  # newest first
        self._decided: Counter[tuple[str, str]] = Counter()
        self._peaks: dict[int, int] = {}  # by hour
        self._observed: int | None = None  # what mode Observe would have set, while it differs from what is

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(self._changes)

    @property
    def decided(self) -> Mapping[tuple[str, str], int]:
        """How often was decided what for which reason: pairs of cause and up, down or hold."""
        return dict(self._decided)

    def add(self, change: Change) -> None:
        self._changes.appendleft(change)

    def scale(self, decision: Decision, at_s: float) -> Change:
        """Note that a decision was carried out."""
        change = _change(decision, at_s, is_done=True)
        self.add(change)
        return change

    def observe(self, decision: Decision, at_s: float) -> None:
        """Note what would have been done, once."""
        if decision.desired == decision.current:
            self._observed = None
        elif decision.desired != self._observed:
            self._observed = decision.desired
            self.add(_change(decision, at_s, is_done=False))

    def count(self, decision: Decision, at_s: float) -> None:
        """Note a decision, whatever became of it."""
        self._decided[decision.cause, _direction(decision)] += 1
        hour = int(at_s // HOUR_S)
        self._peaks[hour] = max(self._peaks.get(hour, 0), decision.wanted)
        self._peaks = {each: peak for each, peak in self._peaks.items() if hour - DAY_HOURS < each <= hour}

    def peak(self, at_s: float) -> int:
        """Return the most groups that were wanted within a day: the smallest fixed fleet that would have done."""
        return max((peak for hour, peak in self._peaks.items() if hour > at_s // HOUR_S - DAY_HOURS), default=0)


def _change(decision: Decision, at_s: float, *, is_done: bool) -> Change:
    return Change(
        at_s=at_s,
        before=decision.current,
        after=decision.desired,
        reason=decision.cause,
        message=decision.message if is_done else f"observed, not done: {decision.message}",
        limited_by=decision.limited_by,
        is_done=is_done,
    )


def _direction(decision: Decision) -> str:
    if decision.desired == decision.current:
        return "hold"
    return "up" if decision.desired > decision.current else "down"
