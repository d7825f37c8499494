"""How a request ends, and what its client is told where nobody can end it well."""

from enum import StrEnum

from glm_edge.errors.failure import Failure
from glm_gateway.proxy.connection import Head


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


GROUP_LOST = Failure(
    503,
    "the group that wrote this answer was lost, and no other one could go on; try again",
    "service_unavailable",
    code="group_lost",
    retry_after_s=1,
)

CUT = Failure(
    503,
    "the gateway stops, and could not wait for the end of this answer; try again",
    "service_unavailable",
    code="gateway_stopped",
    retry_after_s=1,
)


def outcome_of(status: int) -> Outcome:
    return Outcome.FINISHED if status < 400 else Outcome.REFUSED if status < 500 else Outcome.FAILED


def busy(head: Head) -> Failure:
    """Return what a client is told where groups take no more, by what one of them answered."""
    retry_after = head.get(b"retry-after") or b""
    return Failure(
        503,
        "no group takes the request now; try again",
        "service_unavailable",
        code="overloaded",
        retry_after_s=int(retry_after) if retry_after.isdigit() and len(retry_after) < 6 else 1,
    )
