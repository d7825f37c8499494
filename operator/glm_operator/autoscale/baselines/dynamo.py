"""NVIDIA Dynamo's planner: a floor from throughput every 180 s, a step by load every 5 s.

Source: Dynamo's planner guide, both loops on, for aggregated engines. Floor: ceil(forecast rate / rate of an engine at
the SLA), forecast by the last interval, engine profiled beforehand. Load: +1 if every engine's estimated TTFT or ITL is
above the SLA, -1 if all are below 80 % of it and would be with N / (N - 1) of the load. Holds while groups start. An
average of nothing is 0, and a query that fails holds.
"""

import math

from glm_operator.api.slo import Slo
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.model.capacity import Shape, requests_per_second, tightest
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "down sensitivity"
KNOBS = (0.4, 0.6, 0.8, 0.9, 1.0)
DEFAULT = 0.8
THROUGHPUT_S, LOAD_S = 180.0, 5.0


class Dynamo:
    name = "Dynamo planner"
    period_s = LOAD_S

    def __init__(self, slo: Slo, calibration: Calibration, sensitivity: float = DEFAULT) -> None:
        self._ttft_s = tightest(slo, "ttft") or math.inf
        self._itl_s = tightest(slo, "itl") or math.inf
        self._calibration = calibration
        self._sensitivity = sensitivity
        self._floor = 1
        self._floor_at_s = 0.0

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            if view.now_s - self._floor_at_s >= THROUGHPUT_S:
                self._floor_at_s = view.now_s
                self._floor = self._by_throughput(view)
            estimates = self._estimates(view)
        except Away:
            return Verdict(current)
        if situation.starting:
            return Verdict(current)
        if current < self._floor:
            return Verdict(self._floor, "floor")
        if not estimates or len(estimates) < situation.serving:
            return Verdict(current)
        if all(ttft_s > self._ttft_s or itl_s > self._itl_s for ttft_s, itl_s in estimates):
            return Verdict(current + 1, "every engine is above the SLA")
        if current > self._floor and current > 1:
            more = current / (current - 1)
            share = self._sensitivity
            if all(
                ttft_s * more < share * self._ttft_s and itl_s * more < share * self._itl_s
                for ttft_s, itl_s in estimates
            ):
                return Verdict(current - 1, "every engine is below the SLA")
        return Verdict(current)

    def _by_throughput(self, view: View) -> int:
        requests = sum(view.increase("glm_requests_received_total", THROUGHPUT_S).values())
        if not requests:
            return 1
        prompt = sum(view.increase("glm_prompt_tokens_received_total", THROUGHPUT_S).values()) / requests
        ended = sum(view.increase("glm_requests_total", THROUGHPUT_S).values())
        generated = sum(view.increase("glm_generation_tokens_total", THROUGHPUT_S).values())
        output = generated / ended if ended else 1.0
        shape = Shape(prompt, max(1.0, output), prompt + output / 2)
        engine = requests_per_second(self._calibration, shape, None if self._itl_s == math.inf else self._itl_s)
        return max(1, math.ceil(requests / THROUGHPUT_S / engine))

    def _estimates(self, view: View) -> list[tuple[float, float]]:
        """Return TTFT and ITL in seconds, of each engine, from what it holds."""
        calibration = self._calibration
        waiting, left = view.latest("glm_prompt_tokens_waiting"), view.latest("glm_prompt_tokens_left")
        running, in_flight = view.latest("glm_num_requests_running"), view.latest("glm_in_flight_tokens")
        requests = sum(view.increase("glm_requests_received_total", 60.0).values())
        prompts = sum(view.increase("glm_prompt_tokens_received_total", 60.0).values())
        prompt = prompts / requests if requests else 0.0
        found = []
        for group in waiting:
            tokens = waiting[group] + left[group] + prompt
            ttft_s = calibration.prefill_base_s + calibration.prefill_s(round(tokens), 0.0)
            context = max(0.0, in_flight[group] - waiting[group])
            itl_s = calibration.decode_base_s + calibration.decode_s(round(running[group]), context)
            found.append((ttft_s, itl_s))
        return found
