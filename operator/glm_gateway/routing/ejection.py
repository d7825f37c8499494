"""Which groups get nothing for a while because they failed: outlier ejection.

A group that fails several times in a row is out. After a time it gets one request, the probe: if that succeeds it is in
again, else it is out for twice as long. Never more than half of the groups are out: when everything fails it is not the
groups, and those that are left would drown.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FAILURES = 3
"""In a row. One may be the request's own fault, and a refused connection comes back at once: three cost no time."""

FIRST_S = 1.0
LONGEST_S = 60.0
PROBE_S = 60.0
"""A probe that nobody reports on is over after this time: its client may have waited long, or its exchange was lost."""

FORGIVEN_S = 60.0
"""A group that was in for so long and did not fail often enough to be out again begins with the first time anew."""


@dataclass
class _Record:
    failures: int = 0  # since the last success
    times_out: int = 0  # in a row: how long the next one is
    out_until_s: float | None = None  # None: it is in
    back_s: float = 0.0  # when it came in last
    probe: tuple[int, float] | None = None  # the request that is it, and since when


class Ejection:
    """The records of all groups. One a gateway. now: seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    @property
    def knows_failures(self) -> bool:
        """Whether any group has failed lately: if not, all are admitted."""
        return bool(self._records)

    def admitted(self, groups: Iterable[str], now: float) -> list[str]:
        """Return the groups that may get a request, in their order: those that are in, and those to be probed now.

        Where more than half are out, those that come back soonest are taken in early.
        """
        names = list(groups)
        out = [name for name in names if self._is_out(name, now)]
        excess = len(out) - len(names) // 2
        if excess > 0:
            out = sorted(out, key=lambda name: (self._records[name].out_until_s or 0.0, name))[excess:]
        refused = set(out)
        return [name for name in names if name not in refused]

    def begin(self, group: str, number: int, now: float) -> None:
        """Note that a group gets a request. If its time is over, that is the probe, and there is no other beside it.

        number: of the request, for drop.
        """
        record = self._records.get(group)
        if record is not None and record.out_until_s is not None and now >= record.out_until_s:
            record.probe = (number, now)

    def succeed(self, group: str, now: float) -> None:
        """Note a first byte, or an answer that is the client's fault: the group works."""
        record = self._records.get(group)
        if record is None:
            return
        record.failures = 0
        if record.out_until_s is not None:
            record.out_until_s = record.probe = None
            record.back_s = now
        elif now - record.back_s > FORGIVEN_S:
            del self._records[group]

    def fail(self, group: str, now: float) -> None:
        """Note a failure that is the group's: no connection, a reply broken off, a 5xx that is no refusal for load."""
        record = self._records.setdefault(group, _Record())
        record.failures += 1
        if record.out_until_s is not None:
            if now < record.out_until_s:
                return  # a request from before it went out, or one that had no other group: it says nothing new
        elif record.failures < FAILURES:
            return
        elif now - record.back_s > FORGIVEN_S:
            record.times_out = 0
        record.out_until_s = now + min(LONGEST_S, FIRST_S * 2.0 ** min(record.times_out, 32))
        record.times_out += 1
        record.probe = None

    def drop(self, group: str, number: int) -> None:
        """Note that a request ended without saying anything of its group, as when its client went away."""
        record = self._records.get(group)
        if record is not None and record.probe is not None and record.probe[0] == number:
            record.probe = None

    def forget(self, group: str) -> None:
        """Forget a group: it is gone, or began anew."""
        self._records.pop(group, None)

    def num_out(self, groups: Iterable[str], now: float) -> int:
        """Return how many of these groups get nothing now."""
        names = list(groups)
        return len(names) - len(self.admitted(names, now))

    def _is_out(self, group: str, now: float) -> bool:
        record = self._records.get(group)
        if record is None or record.out_until_s is None:
            return False
        if now < record.out_until_s:
            return True
        return record.probe is not None and now - record.probe[1] < PROBE_S
