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

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(
            self.num_requests + other.num_requests,
            self.num_failed + other.num_failed,
            self.usage + other.usage,
            self.cost + other.cost,
            self.seconds + other.seconds,
        )


@dataclass(slots=True)
class _Tally:
    """A Sum that is counted up in place: millions of entries are read at a start."""

    num_requests: int = 0
    num_failed: int = 0
    prompt: int = 0
    cached: int = 0
    answer: int = 0
    thinking: int = 0
    cost: int = 0
    seconds: float = 0.0

    def add(self, entry: Entry, sign: int = 1) -> None:
        self.num_requests += sign
        self.num_failed += sign * (entry.outcome in ("failed", "refused"))
        self.prompt += sign * entry.prompt
        self.cached += sign * entry.cached
        self.answer += sign * entry.answer
        self.thinking += sign * entry.thinking
        self.cost += sign * entry.cost
        self.seconds += sign * entry.e2e_s

    def sum(self) -> Sum:
        usage = Usage(self.prompt, self.cached, self.answer, self.thinking)
        return Sum(self.num_requests, self.num_failed, usage, self.cost, self.seconds)


@dataclass
class Ledger:
    """Sums of some days. Ids are remembered until their day is forgotten, or its ids are: a month of them is large."""

    _tallies: dict[Account, _Tally] = field(default_factory=dict)
    _ids: dict[str, set[str]] = field(default_factory=dict)  # by day
    _partial: dict[str, Entry] = field(default_factory=dict)  # by id

    def add(self, entry: Entry) -> bool:
        """Count an entry, unless it was counted; return whether it was new. What was partial of it counts no more."""
        day = entry.day
        known = self._ids.get(day)
        if known is None:
            known = self._ids[day] = set()
        before = None if entry.is_partial or not self._partial else self._partial.pop(entry.id, None)
        if before is not None:
            self._tallies[Account(before.day, before.key, before.model)].add(before, -1)
        elif entry.id in known:
            return False
        if entry.is_partial:
            self._partial[entry.id] = entry
        known.add(entry.id)
        account = Account(day, entry.key, entry.model)
        tally = self._tallies.get(account)
        if tally is None:
            tally = self._tallies[account] = _Tally()
        tally.add(entry)
        return True

    def partial(self, entry: Entry) -> Entry | None:
        """Return what counts in place of an entry until it is added; None: nothing."""
        return None if entry.is_partial else self._partial.get(entry.id)

    def add_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.add(entry)

    def sums(self, *, day: str = "", month: str = "", key: str = "") -> Iterator[tuple[Account, Sum]]:
        """Yield the sums of a day or a month and a key, in order; what is empty is any."""
        meant = (
            account
            for account in self._tallies
            if account.day.startswith(day or month) and (not key or account.key == key)
        )
        for account in sorted(meant):
            yield account, self._tallies[account].sum()

    def forget_ids_before(self, day: str) -> None:
        """Forget which entries the days before this one have: they must not come again."""
        self._ids = {each: ids for each, ids in self._ids.items() if each >= day}

    def forget_before(self, day: str) -> None:
        """Forget the days before this one: their entries must not come again."""
        self.forget_ids_before(day)
        self._partial = {id_: entry for id_, entry in self._partial.items() if entry.day >= day}
        self._tallies = {account: tally for account, tally in self._tallies.items() if account.day >= day}
