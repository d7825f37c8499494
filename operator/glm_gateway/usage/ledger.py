"""What entries add up to, by day, key and model. Pure: the same entry counts once, however often it is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from glm_gateway.limits.tokens import Usage
from glm_gateway.usage.entry import Entry


class Account(NamedTuple):
    """Whose, of what, when. day: UTC."""

    day: str
    key: str
    model: str


@dataclass(frozen=True, slots=True)
class Sum:
    """num_failed: of all requests those that failed or were refused. seconds: of all of them together."""

    num_requests: int = 0
    num_failed: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    seconds: float = 0.0

    def with_entry(self, entry: Entry) -> "Sum":
        return Sum(
            self.num_requests + 1,
            self.num_failed + (entry.outcome in ("failed", "refused")),
            self.usage + entry.usage,
            self.cost + entry.cost,
            self.seconds + entry.e2e_s,
        )

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(
            self.num_requests + other.num_requests,
            self.num_failed + other.num_failed,
            self.usage + other.usage,
            self.cost + other.cost,
            self.seconds + other.seconds,
        )


@dataclass
class Ledger:
    """Sums of some days. Ids are remembered for as long as their day is kept."""

    _sums: dict[Account, Sum] = field(default_factory=dict)
    _ids: dict[str, set[str]] = field(default_factory=dict)  # by day

    def add(self, entry: Entry) -> bool:
        """Count an entry, unless it was counted; return whether it was new."""
        known = self._ids.setdefault(entry.day, set())
        if entry.id in known:
            return False
        known.add(entry.id)
        account = Account(entry.day, entry.key, entry.model)
        self._sums[account] = self._sums.get(account, Sum()).with_entry(entry)
        return True

    def add_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.add(entry)

    def sums(self, *, day: str = "", month: str = "", key: str = "") -> Iterator[tuple[Account, Sum]]:
        """Yield the sums of a day or a month and a key, in order; what is empty is any."""
        for account in sorted(self._sums):
            is_meant = account.day.startswith(day or month) and (not key or account.key == key)
            if is_meant:
                yield account, self._sums[account]

    def forget_before(self, day: str) -> None:
        """Forget the days before this one: their entries must not come again."""
        self._ids = {each: ids for each, ids in self._ids.items() if each >= day}
        self._sums = {account: sum_ for account, sum_ in self._sums.items() if account.day >= day}
