"""What is said of metrics and promises only once it lasts: neither a query that failed once nor a percentile that
touches its threshold may flap a condition. Pure: the time is passed in."""

from collections.abc import Iterable

from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.signals import UNKNOWN, ClassSignals, State


class Steady:
    """Follows what is found, and says another reason once it has been found for a while."""

    def __init__(self, *, bad_after_s: float, good_after_s: float) -> None:
        self._bad_after_s = bad_after_s
        self._good_after_s = good_after_s
        self._said: Trouble | None = None
        self._other: tuple[str, float] | None = None  # another reason, and since when

    def of(self, found: Trouble, at_s: float) -> Trouble:
        """Return what to say of what was found now; at first that itself."""
        if self._said is None or found.reason == self._said.reason:
            self._said, self._other = found, None
            return found
        if self._other is None or self._other[0] != found.reason or at_s < self._other[1]:
            self._other = found.reason, at_s
        lasts_s = self._bad_after_s if found.is_bad else self._good_after_s
        if at_s - self._other[1] >= lasts_s:
            self._said, self._other = found, None
        return self._said


class Kept:
    """Follows whether classes keep their promises. One that was missed is kept again once it was for a while."""

    def __init__(self, *, good_after_s: float) -> None:
        self._good_after_s = good_after_s
        self._missed: dict[str, float | None] = {}  # by class: since when it is as promised again

    def of(self, slo: Slo, classes: Iterable[ClassSignals], at_s: float) -> dict[str, bool]:
        """Return whether each class keeps its promise; one without traffic, or that nobody can measure, is left out."""
        signals = {each.name: each for each in classes}
        met, unknown = {}, set()
        for each in slo.classes:
            found = signals.get(each.name, ClassSignals(name=each.name)).status_latency
            latencies = {signal: found.get(signal, UNKNOWN) for signal in each.thresholds}
            known = {signal: value.value for signal, value in latencies.items() if value.state is State.VALUE}
            if known:
                is_kept = all(value <= each.thresholds[signal] for signal, value in known.items())
                met[each.name] = self._settled(each.name, at_s, is_kept=is_kept)
            elif not all(value.state is State.IDLE for value in latencies.values()):
                unknown.add(each.name)
        self._missed = {name: since for name, since in self._missed.items() if name in met or name in unknown}
        return met

    def _settled(self, name: str, at_s: float, *, is_kept: bool) -> bool:
        if not is_kept:
            self._missed[name] = None
            return False
        if name not in self._missed:
            return True
        since = self._missed[name]
        if since is None or at_s < since:
            self._missed[name] = since = at_s
        if at_s - since < self._good_after_s:
            return False
        del self._missed[name]
        return True
