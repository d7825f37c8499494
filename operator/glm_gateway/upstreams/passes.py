"""Through how many gateways a request has passed: names that lead in a circle would send it round for ever. Pure.

Each gateway adds itself to the `via` (RFC 9110, 7.6.3) of what it sends outside, and of what others put there sends
nothing.
"""

from collections.abc import Iterable

from glm_edge.errors.failure import Failure

MAX_PASSES = 3
"""Through gateways, one behind the other."""

_OURS = b"glm-gateway"


def num_passes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how often a request has passed through a gateway. headers: names in small letters."""
    passes = (each.split() for name, value in headers if name == b"via" for each in value.split(b","))
    return sum(len(each) > 1 and each[1].lower() == _OURS for each in passes)


def via(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the `via` of a request that goes outside, which came with these headers."""
    return b", ".join([b"1.1 " + _OURS] * (num_passes(headers) + 1))


def circle(headers: Iterable[tuple[bytes, bytes]]) -> Failure | None:
    """Return why a request goes no further; None: it may."""
    num = num_passes(headers)
    if num <= MAX_PASSES:
        return None
    return Failure(
        508,
        f"the request has passed through {num} gateways, and {MAX_PASSES} are allowed: a name or an overflow of one "
        "leads back to another",
        "upstream_error",
        code="loop_detected",
    )
