"""What those are told who wait: a comment in their stream, or how long to stay away."""

import math
from dataclasses import dataclass

UNKNOWN_START_S = 60.0  # of a model that has never started here: told as "maybe"


@dataclass(frozen=True)
class Start:
    """A group on its way. usual_s: what starts were measured to take, None: nothing was. began: None, not yet."""

    usual_s: float | None
    began: float | None

    def left_s(self, now: float) -> float:
        """Return how long it probably takes from now on; a start that is late is told as a second away."""
        usual = UNKNOWN_START_S if self.usual_s is None else self.usual_s
        return usual if self.began is None else max(1.0, usual - (now - self.began))

    def retry_after_s(self, now: float) -> int:
        """Return the value of Retry-After for who cannot wait here."""
        return math.ceil(self.left_s(now))


def turn_comment(deployment: str, waited_s: float, num_before: int) -> bytes:
    """Return a server-sent comment for who waits in turn. num_before: requests that go first, as it stands."""
    return f": waiting {waited_s:.0f} s for a turn at {deployment}; requests that go first: {num_before}\n\n".encode()


def comment(deployment: str, start: Start, waited_s: float, now: float) -> bytes:
    """Return a server-sent comment: clients skip it, people who look at the stream read it."""
    what = f"waiting {waited_s:.0f} s for a group of {deployment} to start"
    usual = "no start was measured yet" if start.usual_s is None else f"a start takes {start.usual_s:.0f} s"
    left = f", about {start.left_s(now):.0f} s from now" if start.began is not None else ""
    return f": {what}; {usual}{left}\n\n".encode()
