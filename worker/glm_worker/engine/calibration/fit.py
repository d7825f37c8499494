"""Coefficients that are not negative from points, by least relative errors. Pure."""

from collections.abc import Sequence
from itertools import product
from statistics import median

import numpy as np
import numpy.typing as npt

Point = tuple[Sequence[float], float]
"""The factors of each coefficient, and the seconds."""

_ROUNDS = 30  # of weighing; far more than it takes to settle
_LEAST_ERROR = 0.01  # relative: below it a point counts no more than the others
_HELD_UP = 0.5  # relative error from which on the machine did something else

_Array = npt.NDArray[np.float64]


def fit(points: Sequence[Point]) -> list[float]:
    """Return a coefficient for each factor, none below zero; one that nothing speaks for is 0.

    A queue feels what all steps take together. So the fit is that of means, where a long step counts for more; medians
    would forget that steps are late more often than early. But a machine that does something else now and then makes
    single steps far too long: what is far from a first fit by relative errors, not squared, is left out.
    """
    factors = np.array([factors for factors, _ in points], dtype=np.float64)
    seconds = np.array([seconds for _, seconds in points], dtype=np.float64)
    relative = factors / seconds[:, None]  # so that the target is 1 everywhere
    weights = np.ones(len(points))
    found = np.zeros(factors.shape[1])
    for _ in range(_ROUNDS):  # iteratively reweighted least squares
        found = _not_negative(relative * weights[:, None], weights)
        errors: _Array = np.abs(relative @ found - 1)
        weights = 1 / np.sqrt(np.maximum(errors, _LEAST_ERROR))
    expected = factors @ found
    usual = np.abs(expected - seconds) <= _HELD_UP * np.minimum(expected, seconds)
    if usual.sum() >= len(found):
        roots = np.sqrt(expected[usual])  # weighed by what is expected, the fit has the same sum as the seconds
        found = _not_negative(factors[usual] / roots[:, None], seconds[usual] / roots)
    return [float(value) for value in found]


def median_error(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of |fitted - measured| / measured over pairs of both; 0 of none."""
    return median(abs(fitted - measured) / measured for fitted, measured in pairs) if pairs else 0.0


def _not_negative(factors: _Array, target: _Array) -> _Array:
    """Return the least squares solution with no value below zero.

    Factors are few, so every choice of those that are zero is tried: that finds the best one for certain. Only when the
    one without zeros is negative somewhere, which is rare.
    """
    free: _Array = np.asarray(np.linalg.lstsq(factors, target, rcond=None)[0], dtype=np.float64)
    if (free >= 0).all():
        return free
    best, best_error = np.zeros(factors.shape[1]), float("inf")
    for choice in product((True, False), repeat=factors.shape[1]):
        used = np.flatnonzero(choice)
        found = np.zeros(factors.shape[1])
        if used.size:
            found[used] = np.linalg.lstsq(factors[:, used], target, rcond=None)[0]
        error = float(((factors @ found - target) ** 2).sum())
        if (found >= 0).all() and error < best_error:
            best, best_error = found, error
    return best
