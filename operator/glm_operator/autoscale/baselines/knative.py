"""Knative's KPA: concurrency in a stable and in a panic window.

Source: Knative Serving's autoscaler and its ConfigMap: every 2 s ceil(concurrency / (100 x 70 %)); stable window
60 s; panic when the last 6 s ask for 200 % of the ready pods, until that has not been so for a stable window; panic
never shrinks; no data: hold. A step up is at most 1000 times the ready pods, a step down half of them.
"""

import math

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "container concurrency"
KNOBS = (50.0, 75.0, 100.0, 128.0, 160.0)
DEFAULT = 100.0
UTILISATION = 0.7
STABLE_S, PANIC_S = 60.0, 6.0
PANIC_THRESHOLD = 2.0


class Knative:
    name = "Knative KPA"
    period_s = 2.0

    def __init__(self, concurrency: float = DEFAULT) -> None:
        self._target = concurrency * UTILISATION
        self._panic_at_s: float | None = None
        self._panic_most = 0

    def decide(self, view: View, situation: Situation) -> Verdict:
        current, now_s, ready = situation.spec_groups, view.now_s, max(1, situation.serving)
        try:
            stable, panic = _concurrency(view, STABLE_S), _concurrency(view, PANIC_S)
        except Away:
            return Verdict(current)
        if stable is None or panic is None:
            return Verdict(current)
        least, most = math.floor(ready / 2), 1000 * ready
        stable_wants = max(least, min(most, math.ceil(stable / self._target)))
        panic_wants = max(least, min(most, math.ceil(panic / self._target)))
        if math.ceil(panic / self._target) / ready >= PANIC_THRESHOLD:
            if self._panic_at_s is None:
                self._panic_most = 0
            self._panic_at_s = now_s
        elif self._panic_at_s is not None and now_s - self._panic_at_s >= STABLE_S:
            self._panic_at_s = None
        if self._panic_at_s is None:
            return Verdict(stable_wants)
        self._panic_most = max(self._panic_most, stable_wants, panic_wants, current)
        return Verdict(self._panic_most)


def _concurrency(view: View, window_s: float) -> float | None:
    running = view.average("glm_num_requests_running", window_s)
    waiting = view.average("glm_num_requests_waiting", window_s)
    return sum(running.values()) + sum(waiting.values()) if running else None
