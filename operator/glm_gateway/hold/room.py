"""The waiting room of one deployment: bounded in requests, bytes and time, left in order of priority and arrival."""

import math
from bisect import insort
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may wait, and how long one request does."""

    max_held: int = 1000
    max_bytes: int = 256 * 2**20
    timeout_s: float = 600.0


@dataclass(frozen=True, order=True)
class Ticket:
    """One request that waits. priority: the lower goes first. number: in order of arrival."""

    priority: int
    number: int
    num_bytes: int = field(compare=False)
    since: float = field(compare=False)


@dataclass(frozen=True)
class TurnedAway:
    """Why there is no place, in words for the client."""

    reason: str


@dataclass(frozen=True)
class Demand:
    """What the operator is told: requests that wait, and how long the first of them has. Nothing waits: 0 and 0.0."""

    num_held: int
    oldest_s: float


@dataclass
class WaitingRoom:
    """Everybody who entered leaves once: called, given up, or gone."""

    bounds: Bounds = field(default_factory=Bounds)
    _tickets: list[Ticket] = field(default_factory=list)  # in order
    _num_bytes: int = 0
    _next_number: int = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, num_bytes: int, priority: int, now: float) -> Ticket | TurnedAway:
        """Take a request in. num_bytes: of its body, which is kept."""
        bounds = self.bounds
        if len(self._tickets) >= bounds.max_held:
            return TurnedAway(f"{len(self._tickets)} requests wait for a group to start, {bounds.max_held} may")
        if self._num_bytes + num_bytes > bounds.max_bytes:
            return TurnedAway(
                f"requests of {self._num_bytes} bytes wait for a group to start and this one has {num_bytes};"
                f" {bounds.max_bytes} may"
            )
        ticket = Ticket(priority, self._next_number, num_bytes, now)
        self._next_number += 1
        self._num_bytes += num_bytes
        insort(self._tickets, ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The client is gone, or was given up. Without effect on who has left before."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._num_bytes -= ticket.num_bytes

    def call(self, most: int) -> list[Ticket]:
        """Let as many go as there is room for at the groups, the most urgent first."""
        called = self._tickets[:most]
        del self._tickets[:most]
        self._num_bytes -= sum(ticket.num_bytes for ticket in called)
        return called

    def give_up(self, now: float) -> list[Ticket]:
        """Let those go who have waited for too long."""
        late = [ticket for ticket in self._tickets if now - ticket.since >= self.bounds.timeout_s]
        for ticket in late:
            self.leave(ticket)
        return late

    def next_give_up(self) -> float | None:
        """Return the moment at which somebody will have waited for too long."""
        return (
            min((ticket.since for ticket in self._tickets), default=math.inf) + self.bounds.timeout_s if self else None
        )

    def demand(self, now: float) -> Demand:
        oldest = min((ticket.since for ticket in self._tickets), default=now)
        return Demand(len(self._tickets), max(0.0, now - oldest))
