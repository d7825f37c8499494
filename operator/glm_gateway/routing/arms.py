"""Which arm of a split a request is on: between deployments (A/B), or between revisions of one.

Each arm scores by itself for a key, by weighted rendezvous: the share of keys is the share of weights, and a weight
that changes moves keys to or from its own arm only.
Source: -log(hash) / weight is an exponential variable of that rate, and the least of several is each one's with the
probability of its share of the rates.
"""

from collections.abc import Collection, Mapping
from math import isfinite, log

import msgspec

from glm_gateway.routing.rendezvous import mixed, number_of, share_of

OTHERS = ""
"""The arm of all that a split of revisions does not name, where it has one."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Weights by arm. An arm that is not named has none.

    name: of the experiment; keys fall otherwise in each, so that two of them do not go by the same half of the users.
    may_fall: whether keys of an arm without a ready group go to the others. If not they wait.
    """

    name: str
    weights: Mapping[str, float]
    may_fall: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for a weight that is none."""
        for arm, weight in self.weights.items():
            if not isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of {arm} in {self.name} is {weight}; allowed is 0 or more")


def arm_of(split: Split, key: str, ready: Collection[str]) -> str | None:
    """Return the arm that a key is on; None when it has no ready group and may not fall, or no arm has a weight.

    ready: arms that have a group that takes requests. An arm of weight 0 gets nothing, whoever else is not ready.
    """
    arms = {arm: weight for arm, weight in split.weights.items() if weight > 0}
    if split.may_fall:
        arms = {arm: weight for arm, weight in arms.items() if arm in ready}
    if not arms:
        return None
    seed = number_of(key) ^ mixed(number_of(split.name))
    chosen = min(arms, key=lambda arm: (_score(seed, arm, arms[arm]), arm))
    return chosen if chosen in ready else None


def _score(seed: int, arm: str, weight: float) -> float:
    return -log(share_of(mixed(seed ^ number_of(arm)))) / weight
