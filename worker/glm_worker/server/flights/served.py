"""What there is to tell of an order when it has ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glm_worker.server.flights.replies import Ending
from glm_worker.server.jobs.order import Order


@dataclass(frozen=True, kw_only=True)
class Served:
    """One order from its admission to its end. Times are Unix, in nanoseconds.

    endings: of its answers, empty when it did not finish. error: the kind of failure; None with no endings: cancelled.
    """

    order: Order
    headers: Mapping[str, str]
    began_ns: int
    ended_ns: int
    endings: Sequence[Ending] = ()
    error: str | None = None
    ttft_s: float | None = None
