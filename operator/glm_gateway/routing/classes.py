"""Classes of requests: who goes first, and how long each is promised to wait at most.

They order what waits at the gateway, and say when load is too much: the oldest of a class has waited past its promise.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite

import msgspec

DEFAULT_CLASS = "default"
LOWEST, HIGHEST = -(2**31), 2**31 - 1
"""Of a priority: the bounds that the workers' `priority` has."""


class PriorityClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class. priority: lower goes first, as in a request. promise_s: until the first token; None: none is given."""

    name: str
    priority: int = 0
    promise_s: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what is no priority or no promise."""
        if not LOWEST <= self.priority <= HIGHEST:
            raise ValueError(f"priority of class {self.name} is {self.priority}; allowed is {LOWEST} to {HIGHEST}")
        if self.promise_s is not None and not (isfinite(self.promise_s) and self.promise_s > 0):
            raise ValueError(f"promise_s of class {self.name} is {self.promise_s}; allowed is above 0")

    def due_s(self, arrived_s: float) -> float:
        """Return when a request must have its first token; inf when nothing is promised."""
        return inf if self.promise_s is None else arrived_s + self.promise_s

    def is_late(self, waited_s: float) -> bool:
        """Tell whether a wait breaks the promise."""
        return self.promise_s is not None and waited_s > self.promise_s


class Classes:
    """All classes by name. There is always one named default: of requests that name none, or one that is not known.

    groups: names of classes by the group of the caller's key.
    """

    def __init__(self, classes: Iterable[PriorityClass] = (), groups: Mapping[str, str] | None = None) -> None:
        """Raise ValueError when a name is there twice."""
        self._groups = dict(groups or {})
        self._by_name = {DEFAULT_CLASS: PriorityClass(name=DEFAULT_CLASS)}
        names = set()
        for each in classes:
            if each.name in names:
                raise ValueError(f"class {each.name} is there twice; names must differ")
            names.add(each.name)
            self._by_name[each.name] = each

    def __getitem__(self, name: str | None) -> PriorityClass:
        """Return the class of this name, else default."""
        return self._by_name.get(name or DEFAULT_CLASS) or self._by_name[DEFAULT_CLASS]

    def of_group(self, group: str | None) -> PriorityClass:
        """Return the class of a caller whose key is in this group, or in none."""
        return self[None if group is None else self._groups.get(group)]

    def __iter__(self) -> Iterator[PriorityClass]:
        """Yield all classes, the one that goes first first."""
        return iter(sorted(self._by_name.values(), key=lambda each: (each.priority, each.name)))


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a request stands among those that wait: the least goes first, the greatest is shed first.

    The class first, then as in the workers: the request's own priority, the deadline, the arrival. So a client that
    asks to go first goes before nobody of a class that is ahead of its own.
    """

    class_priority: int
    priority: int
    due_s: float
    arrived_s: float
    number: int  # of arrivals: no two are equal


def place_of(
    found: PriorityClass, *, arrived_s: float, number: int, priority: int = 0, deadline_s: float | None = None
) -> Place:
    """Return the place of a request. It is due at its own deadline or by the promise to its class, what comes first.

    priority: of its body. deadline_s: of its body, from its arrival.
    """
    due_s = found.due_s(arrived_s)
    if deadline_s is not None:
        due_s = min(due_s, arrived_s + deadline_s)
    return Place(found.priority, priority, due_s, arrived_s, number)
