"""The score of `auto`: how likely thinking pays off, by a logistic function of named weights.

    score = 1 / (1 + exp(-(BIAS + sum of weight x feature)))

The weights come from the 400 prompts to tune on: `benchmarks/auto_thinking.py --fit` finds them again.
"""

import math
from dataclasses import dataclass, fields

from glm_worker.server.thinking.features import Features

BIAS = 1.4
WEIGHTS: dict[str, float] = {
    "length": 1.07,
    "sentences": 0.62,
    "brevity": -4.0,
    "quotation": -1.87,
    "numbers": 0.76,
    "mathematics": 1.5,
    "code": 0.17,
    "technical": 0.53,
    "trouble": 0.15,
    "work": 1.84,
    "weighing": 0.81,
    "causes": 0.93,
    "light": -3.67,
    "fact": -1.03,
    "small_talk": -0.84,
    "tools": -0.13,
    "results": 0.08,
    "answered": -0.09,
    "agent": 0.44,
    "narrow": -0.48,
    "follow_up": -0.15,
    "thought_before": -0.19,
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
