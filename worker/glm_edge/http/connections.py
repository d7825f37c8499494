"""Whether there is room for another connection: what readiness knows of the load of a server, and all of it.

Requests wait in a queue that has a bound of its own, and a full one answers at once that it is full: no reason to send
clients elsewhere. A connection past the bound gets no further than its refusal.
"""

from collections.abc import Callable


class Connections:
    """Counts, and says when the bound is met and when there is room again: below 90 % of it, so that it does not flap.

    on_count: told how many are open. on_full: told a sentence at the bound, None when there is room again.
    """

    def __init__(self, on_count: Callable[[int], None], on_full: Callable[[str | None], None]) -> None:
        self.is_full = False
        self._on_count = on_count
        self._on_full = on_full

    def count(self, num_open: int, most: int) -> None:
        """Note how many are open, and how many may be."""
        self._on_count(num_open)
        room_below = -(-most * 9 // 10)
        if not self.is_full and num_open >= most:
            self.is_full = True
            self._on_full(
                f"{most} connections of clients are open, which is what the HTTP server allows; it is ready again when "
                f"fewer than {room_below} are"
            )
        elif self.is_full and num_open < room_below:
            self.is_full = False
            self._on_full(None)
