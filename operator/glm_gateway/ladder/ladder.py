"""The rungs of overload, and when one is climbed: thoughts are cut before anybody waits in turn or is refused.

The pressure is the oldest wait over what the class promises: 1 is a promise just kept. A rung is climbed at once and
left only after the pressure was below it for a while, one rung after the other, so that no request sees it flap.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from glm_gateway.routing.classes import Place


class Rung(IntEnum):
    """Each one includes those before it."""

    NONE = 0
    SHORT_THOUGHTS = 1  # budgets of thoughts are capped
    NO_THOUGHTS = 2  # where a request leaves it to us (`auto`), it is answered without thinking
    IN_TURN = 3  # no group gets more than it runs at once: what waits, waits here, by priority and deadline
    SHED = 4  # the lowest priority is refused

    @property
    def word(self) -> str:
        """Return its name as clients and metrics read it."""
        return self.name.lower().replace("_", "-")


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


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without its first token. waited_s: at the gateway, and at its group as long as others wait there."""

    waited_s: float
    promise_s: float


def pressure(waiting: Iterable[Waiting]) -> float:
    """Return the pressure of the request that is worst off. Who waits without a promise has none."""
    return max((each.waited_s / each.promise_s for each in waiting if each.promise_s > 0), default=0.0)


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


def shed_for(newcomer: Place, waiting: Sequence[Place]) -> Place | None:
    """Return who is refused when somebody comes on the last rung, so that the line becomes no longer; None: nobody.

    Of those that wait and the newcomer it is one of the lowest priority: of the class first, then of the request, as
    far as that asks to go last. Who came first stays where they are equal. Where nobody waits there is room.
    """
    last = max(waiting, default=None)
    if last is None:
        return None
    return last if _rank(last) > _rank(newcomer) else newcomer


def _rank(place: Place) -> tuple[int, int]:
    """Return what is gone by: by its own word a request may offer itself, and push nobody out."""
    return place.class_priority, max(0, place.priority)


def retry_after_s(tokens_ahead: int, tokens_per_s: float, *, least: int = 1, most: int = 600) -> int:
    """Return when what is ahead will have been done, from what the groups were measured to do together.

    Nothing was measured: the most, because nothing moves.
    """
    if not tokens_per_s > 0 or math.isinf(tokens_per_s):
        return most if not tokens_per_s > 0 else least
    return min(most, max(least, math.ceil(tokens_ahead / tokens_per_s)))
