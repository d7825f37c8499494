"""AIBrix's APA: replicas in proportion to a metric of pods.

Source: AIBrix's PodAutoscaler, strategy APA, and its example for the KV cache (target 50 %). Every 10 s; outside of
10 % around the target ceil(n u / t) with n as specified, at most 2 n up and n / 2 down; u over a window of 180 s;
cooldown 0 s up, 300 s down. All scrapes failed: hold; of a part that failed the survivors are averaged.
"""

import math
from collections import deque

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "KV target"
KNOBS = (0.3, 0.4, 0.5, 0.6, 0.75)
DEFAULT = 0.5
TOLERANCE = 0.1
WINDOW_S = 180.0
DOWN_COOLDOWN_S = 300.0


class AIBrix:
    name = "AIBrix APA"
    period_s = 10.0

    def __init__(self, target: float = DEFAULT) -> None:
        self._target = target
        self._wanted: deque[tuple[float, int]] = deque()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current, now_s = situation.spec_groups, view.now_s
        try:
            usage = view.average("glm_kv_cache_usage_ratio", WINDOW_S)
        except Away:
            return Verdict(current)
        if not usage:
            return Verdict(current)
        ratio = sum(usage.values()) / len(usage) / self._target
        wanted = current
        if abs(ratio - 1) > TOLERANCE:
            wanted = max(math.floor(current / 2), min(2 * current, math.ceil(current * ratio)))
        self._wanted.append((now_s, wanted))
        while self._wanted[0][0] < now_s - DOWN_COOLDOWN_S:
            self._wanted.popleft()
        if wanted >= current:
            return Verdict(wanted)
        return Verdict(min(current, max(value for _, value in self._wanted)))
