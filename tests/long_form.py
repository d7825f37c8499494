"""Which parameters of a test belong to its short form, and which to its long one (make integration-long)."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def short_of(values: Iterable[Any], is_short: Callable[[Any], bool] | int) -> list[Any]:
    """Return the values for parametrize, those beyond the short form marked. is_short: the first ones, or which."""
    return [
        value
        if (place < is_short if isinstance(is_short, int) else is_short(value))
        else pytest.param(value, marks=pytest.mark.long)
        for place, value in enumerate(values)
    ]
