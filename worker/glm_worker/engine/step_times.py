"""Whose time a step was: the prompts' or the generated tokens'. Pure.

A step often computes chunks of prompts and one token for each of many running requests at once, and the device does not
say which of them took how long. Steps that only decode say what such rows take alone; in a mixed step the decode rows
are charged that, and the prompts the rest. So both times always add up to the step, and a step of one kind is its own.

By the same numbers the prompts of the next step are bounded: who decodes waits no longer than twice a step of decodes,
or than some tens of tokens take where fewer would cost nearly as much.
"""

from dataclasses import dataclass

FORGET = 0.995  # weight of a step against the next one: about the last 200 count
FORGET_SPEED = 0.8  # the same of the speed of prompts, which changes with the size of their chunks and their contexts
LONGER = 2.0  # how much longer than one of decodes alone a step with prompts beside them may take
LEAST_PREFILL = 16  # tokens; also what others are rounded to
MOST_FOR_LITTLE = 64  # tokens that a step may have in any case, where it costs more to begin with a prompt than these
GROWTH = 2  # times what the step before had: one that was measured wrongly must not let a whole prompt in
CAUTION = 2.0  # how much more a token costs in a small chunk than in a whole step, until that was seen
LEAST_SPREAD = 1e-3  # variance of the rows, in rows squared, below which a slope cannot be told


class StepTimes:
    """A running estimate of decode steps: seconds = base_s + per_row_s * rows, by least squares that forget."""

    def __init__(self) -> None:
        self._sums = _Sums()
        self._alone = _Speed()  # of prompts in steps of their own
        self._beside = _Speed()  # of prompts beside decodes

    def split(self, step_s: float, prefill_tokens: int, decode_rows: int) -> tuple[float, float]:
        """Return the seconds of prefill and of decode of one step, and learn from it if it only decoded.

        While no step has only decoded, a mixed step is split by share of tokens. A step that computed nothing is
        nobody's time: (0, 0).
        """
        if decode_rows == 0:
            if not prefill_tokens:
                return 0.0, 0.0
            self._alone = self._alone.with_step(prefill_tokens, step_s)
            return step_s, 0.0
        if prefill_tokens == 0:
            self._sums = self._sums.with_step(decode_rows, step_s)
            return 0.0, step_s
        decode_s = min(step_s, self._sums.decode_s(decode_rows, prefill_tokens, step_s))
        if self._sums.weight:
            self._beside = self._beside.with_step(prefill_tokens, step_s - decode_s)
        return step_s - decode_s, decode_s

    def max_prefill_tokens(self, decode_rows: int) -> int | None:
        """Return how many prompt tokens the next step should have at most beside so many decodes.

        None: as many as there is room for, because nobody decodes, or because too little is known yet.
        """
        beside, alone_s = self._beside, self._alone.token_s
        token_s = max(beside.token_s, alone_s) if beside.tokens else CAUTION * alone_s
        if not decode_rows or not self._sums.weight or not token_s:
            return None
        base_s, per_row_s = self._sums.line()
        wanted = (LONGER - 1) * (base_s + per_row_s * decode_rows) / token_s
        if beside.tokens:
            wanted = min(wanted, GROWTH * beside.mean_tokens)
            if alone_s:  # with seconds = begin + tokens * alone_s: as many tokens as take as long as to begin
                wanted = max(wanted, min(MOST_FOR_LITTLE, beside.mean_tokens * (token_s / alone_s - 1)))
        return max(LEAST_PREFILL, int(wanted) // LEAST_PREFILL * LEAST_PREFILL)


@dataclass(frozen=True, slots=True)
class _Speed:
    """Weighted sums over steps."""

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0

    @property
    def mean_tokens(self) -> float:
        """Tokens a step."""
        return self.tokens / self.weight

    @property
    def token_s(self) -> float:
        """Seconds a token; 0 while unknown."""
        return self.seconds / self.tokens if self.tokens else 0.0

    def with_step(self, tokens: int, seconds: float) -> "_Speed":
        return _Speed(
            FORGET_SPEED * self.weight + 1,
            FORGET_SPEED * self.tokens + tokens,
            FORGET_SPEED * self.seconds + seconds,
        )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Weighted sums over steps of x rows and y seconds."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def with_step(self, x: int, y: float) -> "_Sums":
        return _Sums(
            weight=FORGET * self.weight + 1,
            x=FORGET * self.x + x,
            y=FORGET * self.y + y,
            xx=FORGET * self.xx + x * x,
            xy=FORGET * self.xy + x * y,
        )

    def decode_s(self, decode_rows: int, prefill_tokens: int, step_s: float) -> float:
        if not self.weight:
            return step_s * decode_rows / (decode_rows + prefill_tokens)
        base_s, per_row_s = self.line()
        return base_s + per_row_s * decode_rows

    def line(self) -> tuple[float, float]:
        """Return base and slope of the best line with neither below zero: no row saves time, no step is free."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        variance = self.xx / self.weight - mean_x**2
        if variance < LEAST_SPREAD:
            return mean_y, 0.0  # all of one size: nothing says what another size takes
        slope = (self.xy / self.weight - mean_x * mean_y) / variance
        if slope <= 0:
            return mean_y, 0.0
        if mean_y < slope * mean_x:
            return 0.0, self.xy / self.xx
        return mean_y - slope * mean_x, slope
