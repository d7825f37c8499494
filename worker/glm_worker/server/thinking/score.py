"""The score of `auto`: how likely thinking pays off, by a logistic function of named weights.

    score = 1 / (1 + exp(-(BIAS + sum of weight x feature)))

The weights come from the 600 prompts to tune on: `benchmarks/auto_thinking.py --fit` finds them again.
"""

import math
from dataclasses import dataclass, fields

from glm_worker.server.thinking.features import Features

BIAS = 1.88
WEIGHTS: dict[str, float] = {
    "length": 1.53,
    "material": -0.25,
    "sentences": 1.55,
    "brevity": -5.06,
    "quotation": -0.8,
    "handed_over": 0.45,
    "numbers": 0.54,
    "mathematics": 0.7,
    "code": 0.82,
    "technical": 0.4,
    "trouble": 0.12,
    "work": 1.23,
    "weighing": 0.64,
    "causes": 0.76,
    "light": -2.81,
    "fact": -1.21,
    "small_talk": -0.81,
    "tools": -0.09,
    "rounds": 0.04,
    "results": 0.05,
    "answered": -0.13,
    "agent": 0.44,
    "narrow": -0.87,
    "follow_up": 0.19,
    "thought_before": -0.31,
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
