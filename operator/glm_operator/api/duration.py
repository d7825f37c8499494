"""Durations as people write them: a number and one unit, as in 500ms, 1.5s, 30m, 8h or 30d. Pure."""

import re
from typing import Annotated

from pydantic import StringConstraints

DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=15)]


def to_seconds(duration: str) -> float:
    """Return a duration in seconds. Raises ValueError for what has not its form."""
    if re.fullmatch(DURATION_PATTERN, duration) is None:
        raise ValueError(f"{duration!r} is no duration; write a number and a unit, as in 500ms, 1.5s or 30d")
    number = duration.rstrip("mshd")
    return round(float(number) * _SECONDS[duration[len(number) :]], 9)  # 9ms are 0.009, not a bit more
