"""How fast prompts are computed while any are, not on average: by that an idle group would be slow. Pure."""

import math

HORIZON_S = 10.0
"""Of time that prompts took: what was measured so long before counts for a third of what is measured now."""


class PrefillSpeed:
    """Times are seconds that steps spent on prompt tokens; no time passes while none are computed."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """None before the first prompt."""
        return self._tokens / self._seconds if self._seconds > 0 and self._tokens > 0 else None

    def add(self, num_tokens: int, seconds: float) -> None:
        """Note what one step computed of prompts, and the time of the step that is theirs."""
        if num_tokens <= 0 or seconds <= 0:
            return
        kept = math.exp(-seconds / HORIZON_S)
        self._tokens = kept * self._tokens + num_tokens
        self._seconds = kept * self._seconds + seconds
