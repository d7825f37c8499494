"""The score of `auto`: how likely thinking pays off, by a logistic function of named weights.

    score = 1 / (1 + exp(-(BIAS + sum of weight x feature)))

The weights come from the 200 prompts to tune on: `benchmarks/auto_thinking.py --fit` finds them again.
"""

import math
from dataclasses import dataclass, fields

from glm_worker.server.thinking.features import Features

BIAS = 1.14
WEIGHTS: dict[str, float] = {
    "length": 0.96,
    "sentences": 0.39,
    "is_brief": -2.89,
    "quotation": -1.7,
    "numbers": 0.69,
    "mathematics": 1.21,
    "code": 0.47,
    "technical": 0.58,
    "trouble": 0.16,
    "work": 1.35,
    "weighing": 0.64,
    "causes": 0.74,
    "light": -2.84,
    "fact": -1.28,
    "small_talk": -0.8,
    "tools": -0.1,
    "results": 0.06,
    "answered": -0.17,
    "agent": 0.46,
    "narrow": -0.27,
    "follow_up": -0.16,
    "thought_before": -0.21,
}
_MOST_REASONS = 3


@dataclass(frozen=True)
class Score:
    """value: in [0, 1], two digits, as it is reported. reasons: the features that weighed most, heaviest first."""

    value: float
    reasons: tuple[str, ...]


def score_of(features: Features) -> Score:
    """Return the score. It is rounded before anybody compares it, so what is reported is what was decided by."""
    weighed = {each.name: WEIGHTS[each.name] * getattr(features, each.name) for each in fields(features)}
    value = 1 / (1 + math.exp(-(BIAS + math.fsum(weighed.values()))))
    heaviest = sorted((name for name in weighed if weighed[name]), key=lambda name: -abs(weighed[name]))
    return Score(round(value, 2), tuple(heaviest[:_MOST_REASONS]))
