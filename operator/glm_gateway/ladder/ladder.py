"""The rungs of overload, and when one is climbed: thoughts are cut before anybody waits in turn or is refused.

The pressure is the oldest wait over what the class promises: 1 is a promise just kept. A rung is climbed at once and
left only after the pressure was below it for a while, one rung after the other, so that no request sees it flap.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum


class Rung(IntEnum):
    """Each one includes those before it."""

    NONE = 0
    SHORT_THOUGHTS = 1  # budgets of thoughts are capped
    NO_THOUGHTS = 2  # where a request leaves it to us (`auto`), it is answered without thinking
    IN_TURN = 3  # no group gets more than it runs at once: what waits, waits here, by priority and deadline
    SHED = 4  # the lowest priority is refused


HEADER = "x-glm-overload"
"""Of a reply: the name of the rung that it was answered on, where it is not the ground."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """At which pressure each rung is climbed, and for how long the pressure must be lower before it is left."""

    short_thoughts: float = 1.0
    no_thoughts: float = 1.5
    in_turn: float = 2.0
    shed: float = 4.0
    calm_s: float = 10.0
    max_thinking_tokens: int = 512  # of a capped thought

    def rung_at(self, pressure: float) -> Rung:
        climbed = (self.short_thoughts, self.no_thoughts, self.in_turn, self.shed)
        return Rung(sum(pressure >= step for step in climbed))


def pressure(oldest_wait_s: Mapping[str, float], promises_s: Mapping[str, float]) -> float:
    """Return the pressure of the class that is worst off. Classes without a promise have none."""
    return max(
        (wait / promise for name, wait in oldest_wait_s.items() if (promise := promises_s.get(name, 0.0)) > 0),
        default=0.0,
    )


@dataclass
class Ladder:
    """Where a deployment stands."""

    steps: Steps = field(default_factory=Steps)
    rung: Rung = Rung.NONE
    _calm_since: float | None = None

    def look(self, pressure: float, now: float) -> Rung:
        """Take a look, and return where we stand after it. A pressure that is no number changes nothing."""
        if math.isnan(pressure):
            return self.rung
        wanted = self.steps.rung_at(pressure)
        if wanted >= self.rung:
            self.rung, self._calm_since = wanted, None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self.steps.calm_s:
            self.rung, self._calm_since = Rung(self.rung - 1), now
        return self.rung


def is_shed(rung: Rung, priority: int, waiting: Sequence[int]) -> bool:
    """Tell whether a request is refused: on the last rung, where somebody of a higher priority waits.

    priority: the lower goes first. waiting: priorities of those that wait. Of equals nobody is refused for another one:
    the queue's own bound does that.
    """
    return rung is Rung.SHED and any(other < priority for other in waiting)


def retry_after_s(tokens_ahead: int, tokens_per_s: float, *, least: int = 1, most: int = 600) -> int:
    """Return when what is ahead will have been done, from what the groups were measured to do together.

    Nothing was measured: the most, because nothing moves.
    """
    if not tokens_per_s > 0 or math.isinf(tokens_per_s):
        return most if not tokens_per_s > 0 else least
    return min(most, max(least, math.ceil(tokens_ahead / tokens_per_s)))
