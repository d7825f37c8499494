"""Where the requests for a name go, of the several places that it may mean. Pure."""

from collections.abc import Collection

from glm_gateway.routing.arms import OTHERS, Split, arm_of
from glm_gateway.routing.config import CanaryConfig, NameConfig


def split_of(config: NameConfig) -> Split:
    """Return a name of the gateway's file as the split that it is; an alias has one arm."""
    return Split(name=config.name, weights={arm.to: arm.weight for arm in config.arms}, may_fall=config.may_fall)


LEAST_OF_OTHERS = 1e-9
"""Per cent, where the newest revision has all: nobody's, unless it has no group that takes requests."""


def canary_of(config: CanaryConfig) -> Split:
    """Return the newest revision of the gateway's file as one arm, and all others together as the other one."""
    weights = {config.revision: config.weight, OTHERS: max(100.0 - config.weight, LEAST_OF_OTHERS)}
    return Split(name="canary", weights=weights, may_fall=config.may_fall)


def target_of(split: Split, key: str, *, ready: Collection[str], able: Collection[str]) -> str | None:
    """Return the arm of a key; None: it is on an arm that cannot answer such a request, and may not fall.

    ready: arms that take requests now. able: those that can answer this one at all, ready or not. Where no arm is ready
    a key waits for its own.
    """
    if not split.may_fall:
        arm = arm_of(split, key, split.weights)
        return arm if arm in able else None
    within = Split(name=split.name, weights={arm: weight for arm, weight in split.weights.items() if arm in able})
    return arm_of(within, key, set(ready).intersection(able)) or arm_of(within, key, able)
