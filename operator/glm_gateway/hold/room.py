"""The waiting room of one model: bounded in requests, bytes and time, left in the order of places."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from glm_gateway.routing.classes import Place


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may wait, and how long one request does before it is given up."""

    max_held: int = 1000
    max_bytes: int = 256 * 2**20
    timeout_s: float = 600.0


@dataclass(frozen=True, order=True)
class Ticket:
    """One request that waits. place: the least goes first. num_tokens: of its prompt, that no group has computed.

    may_be_shed: it writes and no group has had it yet, so it may be refused for one that goes before it.
    """

    place: Place
    num_bytes: int = field(compare=False)
    since: float = field(compare=False)
    num_tokens: int = field(default=0, compare=False)
    may_be_shed: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class TurnedAway:
    """Why there is no place, in words for the client."""

    reason: str


@dataclass(frozen=True)
class Demand:
    """What the operator is told: requests that wait, how long the first of them has, and the prompt tokens of all.

    Nothing waits: 0 and 0.0.
    """

    num_held: int
    oldest_s: float
    num_tokens: int = 0


@dataclass
class WaitingRoom:
    """Everybody who entered leaves once."""

    bounds: Bounds = field(default_factory=Bounds)
    _tickets: list[Ticket] = field(default_factory=list)  # in order
    _num_bytes: int = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        """Yield those that wait now, in order; they may leave meanwhile."""
        return iter(list(self._tickets))

    def enter(
        self, num_bytes: int, place: Place, now: float, num_tokens: int = 0, *, may_be_shed: bool = True
    ) -> Ticket | TurnedAway:
        """Take a request in. num_bytes: of its body, which is kept. num_tokens: of its prompt, still to be computed."""
        bounds = self.bounds
        if len(self._tickets) >= bounds.max_held:
            return TurnedAway(f"{len(self._tickets)} requests wait for a group, {bounds.max_held} may")
        if self._num_bytes + num_bytes > bounds.max_bytes:
            return TurnedAway(
                f"requests of {self._num_bytes} bytes wait for a group and this one has {num_bytes};"
                f" {bounds.max_bytes} may"
            )
        ticket = Ticket(place, num_bytes, now, num_tokens, may_be_shed)
        self._num_bytes += num_bytes
        insort(self._tickets, ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """It waits no more, for whatever reason. Without effect on who has left before."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._num_bytes -= ticket.num_bytes

    def num_before(self, ticket: Ticket) -> int:
        """Return how many go before one that waits."""
        return bisect_left(self._tickets, ticket)

    def demand(self, now: float) -> Demand:
        oldest = min((ticket.since for ticket in self._tickets), default=now)
        return Demand(len(self._tickets), max(0.0, now - oldest), sum(ticket.num_tokens for ticket in self._tickets))
