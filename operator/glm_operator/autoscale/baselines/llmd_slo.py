"""llm-d's guide for SLOs on KEDA: latency against its promise, as a ratio.

Source: llm-d's guide for scaling by SLO with KEDA: s = average over 45 s of min(max(P90 TTFT / S, P90 TPOT / S), 2); up
above 0.55, down below 0.40 by one pod every 120 s, pods that start are given credit, NaN reads as 0. The ratio becomes
pods as a Value does: pods that serve times s over 0.55. S is the tightest promise of any class.
"""

import math
from collections import deque

from glm_operator.api.slo import Slo
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.series import HISTOGRAMS
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.model.capacity import tightest
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "up threshold"
KNOBS = (0.35, 0.45, 0.55, 0.7, 0.85)
DEFAULT = 0.55
DOWN_SHARE = 0.40 / 0.55
DOWN_EVERY_S = 120.0
AVERAGE_S = 45.0
LATENCY_WINDOW_S = 60.0


class LlmdSlo:
    name = "llm-d SLO"
    period_s = 15.0

    def __init__(self, slo: Slo, up: float = DEFAULT) -> None:
        self._promises = {signal: tightest(slo, signal) for signal in ("ttft", "itl")}
        self._up, self._down = up, up * DOWN_SHARE
        self._scores: deque[tuple[float, float]] = deque()
        self._down_at_s = -math.inf

    def decide(self, view: View, situation: Situation) -> Verdict:
        current, now_s = situation.spec_groups, view.now_s
        try:
            ratios = [
                (view.quantile(HISTOGRAMS[signal], 0.9, LATENCY_WINDOW_S) or 0.0) / promise
                for signal, promise in self._promises.items()
                if promise is not None
            ]
        except Away:
            return Verdict(current)
        self._scores.append((now_s, min(max(ratios, default=0.0), 2.0)))
        while self._scores[0][0] <= now_s - AVERAGE_S:
            self._scores.popleft()
        score = sum(each for _, each in self._scores) / len(self._scores)
        if score > self._up:
            wanted = math.ceil(situation.serving * score / self._up)
            return Verdict(max(current, wanted), f"s is {score:.2f}")
        if score < self._down and now_s - self._down_at_s >= DOWN_EVERY_S and not situation.starting:
            self._down_at_s = now_s
            return Verdict(current - 1, f"s is {score:.2f}")
        return Verdict(current)
