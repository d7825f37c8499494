"""The score of `auto`: how likely thinking pays off, from features, by a logistic function of named weights."""

from dataclasses import dataclass

from glm_worker.server.thinking.features import Features


@dataclass(frozen=True)
class Score:
    """value: in [0, 1], two digits, as it is reported. reasons: the features that weighed most, heaviest first."""

    value: float
    reasons: tuple[str, ...]


def score_of(features: Features) -> Score:
    raise NotImplementedError
