"""Wait for a condition with a deadline: the only way this package waits."""

import time
from collections.abc import Callable
from typing import TypeVar

from glm_cluster.errors import ClusterError

T = TypeVar("T")


def wait_for(what: str, poll: Callable[[], T | None], *, timeout_s: float, interval_s: float = 0.1) -> T:
    """Return the first thing that poll gives which is true; raise ClusterError when there is none in time.

    A ClusterError that poll raises counts as "not yet" and is quoted if it never comes true.
    """
    deadline = time.monotonic() + timeout_s
    last: ClusterError | None = None
    while True:
        try:
            if found := poll():
                return found
        except GaveUp:
            raise
        except ClusterError as error:
            last = error
        if time.monotonic() > deadline:
            because = f": {last}" if last else ""
            raise ClusterError(f"{what} did not happen within {timeout_s:.0f} s{because}")
        time.sleep(interval_s)


class GaveUp(ClusterError):
    """What is waited for cannot happen any more."""
