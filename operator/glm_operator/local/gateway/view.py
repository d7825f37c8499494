"""What a gateway says of itself on its management port. Pure."""

from collections.abc import Collection

import msgspec

from glm_operator.autoscale.zero.asked import Said


class GroupView(msgspec.Struct, frozen=True):
    """One group, as the gateway sees it."""

    ready: bool = False
    leaving: bool = False
    in_flight: int = 0


class ModelView(msgspec.Struct, frozen=True):
    groups: dict[str, GroupView] = {}


class StateView(msgspec.Struct, frozen=True):
    """Its GET /state. What a later version adds is passed over."""

    config_digest: str = ""
    config_fault: str | None = None
    running: int = 0
    models: dict[str, ModelView] = {}

    def takes(self, digest: str) -> bool:
        """Whether it serves by the file with this digest, or has said why it does not."""
        return self.config_digest == digest or self.config_fault is not None

    def knows_ready(self, groups: Collection[str]) -> bool:
        """Whether it sends requests to each of these."""
        return all(any(self._ready(model, group) for model in self.models.values()) for group in groups)

    def sends_to(self, group: str) -> bool:
        """Whether this group may still get new requests."""
        found = [model.groups[group] for model in self.models.values() if group in model.groups]
        return any(not each.leaving for each in found)

    @staticmethod
    def _ready(model: ModelView, group: str) -> bool:
        found = model.groups.get(group)
        return found is not None and found.ready and not found.leaving


class ModelDemand(msgspec.Struct, frozen=True):
    """Who asks for one model."""

    held: int = 0
    held_tokens: int | None = None  # of their prompts; None: an earlier version does not say it
    oldest_s: float = 0.0
    idle_s: float | None = None  # since its last request came or ended; None: none came since the gateway began
    running: int = 0
    deployment: str = ""  # whose groups these are


class DemandView(msgspec.Struct, frozen=True):
    """Its GET /demand."""

    models: dict[str, ModelDemand] = {}
    up_s: float = 0.0

    def said(self, deployment: str) -> Said | None:
        """Return what it says of a deployment; None: nothing, so it does not serve it."""
        found = next((model for model in self.models.values() if model.deployment == deployment), None)
        if found is None:
            return None
        return Said(
            held=found.held,
            running=found.running,
            oldest_s=found.oldest_s,
            idle_s=found.idle_s,
            up_s=self.up_s,
            held_tokens=found.held_tokens,
        )

    @property
    def held(self) -> int:
        """How many requests wait for a group."""
        return sum(model.held for model in self.models.values())
