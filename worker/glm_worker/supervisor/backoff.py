"""How long to wait after something failed at its start. Pure: no clock."""

_MOST_DOUBLINGS = 64  # keeps the power a float; max_s decides long before


def backoff_s(num_failures: int, base_s: float, max_s: float) -> float:
    """Return the seconds to wait after num_failures in a row: 0, then base_s doubling up to max_s."""
    if num_failures == 0:
        return 0.0
    return min(base_s * 2.0 ** min(num_failures - 1, _MOST_DOUBLINGS), max_s)
