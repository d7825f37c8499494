"""What a law is to a simulation. Pure."""

from dataclasses import dataclass
from typing import Protocol

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.seen.scraped import View


@dataclass(frozen=True)
class Verdict:
    """How many groups a law wants now, and why. The bounds of the deployment are applied to it afterwards."""

    desired: int
    why: str = ""
    limited_by: str | None = None


class Law(Protocol):
    """Something that scales. It keeps its own memory from call to call, and is used for one run."""

    name: str
    period_s: float

    def decide(self, view: View, situation: Situation) -> Verdict:
        """Return how many groups there should be. Never raises for what the view lacks."""
        ...


class Fixed:
    """A fleet that never changes."""

    period_s = 60.0

    def __init__(self, groups: int) -> None:
        self.name = f"static {groups}"
        self._groups = groups

    def decide(self, view: View, situation: Situation) -> Verdict:  # noqa: ARG002  a law's signature
        return Verdict(self._groups)
