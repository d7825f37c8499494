"""Which connections are open, and who goes where there is no room for another one.

At the bound a newcomer takes the place of the connection that has been owed no answer for longest: so nobody can keep
others out by connections that ask for nothing. Only where an answer is owed on each is a newcomer refused, and only
that is what readiness knows of the load of a server. Requests wait in a queue that has a bound of its own, and a full
one answers at once that it is full: no reason to send clients elsewhere.
"""

from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    def give_way(self) -> None:
        """Close at once: somebody else needs the place."""


class Connections:
    """Those of a server. Says when all that are allowed are owed answers, and when there is room again: below 90 % of
    them, so that it does not flap.

    on_count: told how many are open. on_full: told a sentence at the bound, None when there is room again. bound: how
    many may be open, where it is less than what the server allows anyway.
    """

    def __init__(
        self, on_count: Callable[[int], None], on_full: Callable[[str | None], None], *, bound: int | None = None
    ) -> None:
        self.is_full = False
        self._on_count = on_count
        self._on_full = on_full
        self._bound = bound
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # they are owed nothing; the longest comes first

    def most(self, allowed: int) -> int:
        """Return how many may be open. allowed: by the server."""
        return allowed if self._bound is None else min(allowed, self._bound)

    def open(self, connection: Connection, allowed: int) -> bool:
        """Note a connection that was made; tell whether there is a place for it, if need be another one's."""
        if len(self._open) >= self.most(allowed) and not self._make_room():
            return False
        self._open.add(connection)
        self._idle[connection] = None
        self._on_count(len(self._open))
        return True

    def note(self, connection: Connection, allowed: int, *, is_owed: bool) -> None:
        """Note whether an answer is owed on a connection now."""
        if connection not in self._open or is_owed == (connection not in self._idle):
            return
        if is_owed:
            del self._idle[connection]
        else:
            self._idle[connection] = None
        self._look(allowed)

    def close(self, connection: Connection, allowed: int) -> None:
        """Note a connection that is no more."""
        if connection not in self._open:
            return
        self._forget(connection)
        self._on_count(len(self._open))
        self._look(allowed)

    def _make_room(self) -> bool:
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        self._forget(longest)
        longest.give_way()
        return True

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _look(self, allowed: int) -> None:
        most = self.most(allowed)
        num_owed, room_below = len(self._open) - len(self._idle), -(-most * 9 // 10)
        if not self.is_full and num_owed >= most:
            self.is_full = True
            self._on_full(
                f"answers are owed on {most} connections of clients, which is what the HTTP server allows; it is ready "
                f"again when they are on fewer than {room_below}"
            )
        elif self.is_full and num_owed < room_below:
            self.is_full = False
            self._on_full(None)
