"""What gateways say of the requests for one deployment. A gateway that says nothing is unknown, and no zero. Pure."""

from dataclasses import dataclass
from functools import cached_property

from glm_operator.autoscale.constants import HUGE


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one gateway says. Seconds are as of now, whenever it said them."""

    held: float  # requests that wait there, for a group or for their turn at one
    running: float  # requests that groups have
    oldest_s: float  # how long the oldest of those that are held has waited
    idle_s: float | None  # since the last request came or ended; None: none came since the gateway began
    up_s: float  # since the gateway began
    held_tokens: float | None = None  # of the prompts of those that wait, not computed yet; None: it does not say

    @property
    def is_believable(self) -> bool:
        """Whether every number can be one."""
        numbers = (self.held, self.running, self.oldest_s, self.up_s, self.idle_s or 0.0, self.held_tokens or 0.0)
        return all(0.0 <= each < HUGE for each in numbers)

    @property
    def quiet_s(self) -> float:
        """For how long it knows that it was asked nothing, in seconds."""
        if self.held or self.running:
            return 0.0
        return self.up_s if self.idle_s is None else self.idle_s


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """One gateway that runs."""

    name: str
    is_ready: bool = True  # clients are sent to it
    said: Said | None = None  # None: nothing of this deployment that is fresh

    @property
    def is_silent(self) -> bool:
        return self.said is None or not self.said.is_believable


@dataclass(frozen=True)
class Asked:
    """All gateways that take requests for a deployment, together."""

    gateways: tuple[Gateway, ...] = ()

    @cached_property
    def silent(self) -> tuple[str, ...]:
        """Those of which nothing is known, by name."""
        return tuple(sorted(each.name for each in self.gateways if each.is_silent))

    @property
    def is_deaf(self) -> bool:
        """Whether requests could wait and nobody would hear of them: no gateway is there, or one has clients and is
        silent."""
        return not self.gateways or any(each.is_silent and each.is_ready for each in self.gateways)

    @property
    def is_known(self) -> bool:
        return bool(self.gateways) and not self.silent

    @property
    def held(self) -> float:
        """Requests that wait, as far as it is known."""
        return min(sum(each.held for each in self._known), HUGE)

    def held_tokens(self, mean_prompt: float) -> float:
        """Return the prompt tokens of those that wait, as far as it is known.

        mean_prompt: tokens that a request brings, where a gateway does not say it.
        """
        tokens = (each.held * mean_prompt if each.held_tokens is None else each.held_tokens for each in self._known)
        return min(sum(tokens), HUGE)

    @property
    def running(self) -> float:
        """Requests that groups have, as far as it is known."""
        return min(sum(each.running for each in self._known), HUGE)

    @property
    def oldest_s(self) -> float:
        return max((each.oldest_s for each in self._known), default=0.0)

    @property
    def quiet_s(self) -> float | None:
        """For how long those that are known were asked nothing. None: none is known."""
        return min((each.quiet_s for each in self._known), default=None)

    @cached_property
    def _known(self) -> tuple[Said, ...]:
        return tuple(each.said for each in self.gateways if each.said is not None and not each.is_silent)
