"""llm-d's Workload Variant Autoscaler, saturation analysis version 2.

Source: the design of its saturation analyzer. A replica's capacity is the smaller of 80 % of its KV tokens and the
tokens it held when it was seen queueing. Up when demand / 0.85 exceeds the capacity of ready and pending replicas; down
when demand / 0.70 leaves a whole replica unused. Demand is what the caches hold and what waits. Data missing or older
than 5 minutes hold. Asked every 30 s; an HPA carries it out.
"""

import math

from glm_operator.autoscale.baselines.hpa import Behavior
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "up threshold"
KNOBS = (0.6, 0.7, 0.85, 0.95, 1.0)
DEFAULT = 0.85
DOWN_SHARE = 0.70 / 0.85
KV_SHARE = 0.8
QUEUE_LENGTH = 5


class Wva:
    name = "WVA v2"
    period_s = 30.0

    def __init__(self, up: float = DEFAULT) -> None:
        self._up, self._down = up, up * DOWN_SHARE
        self._compute_limit = math.inf  # tokens that a replica held when it was seen queueing
        self._behavior = Behavior()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            usage = view.latest("glm_kv_cache_usage_ratio")
            room = view.latest("glm_kv_cache_tokens")
            waiting = view.latest("glm_num_requests_waiting")
            waiting_tokens = view.latest("glm_prompt_tokens_waiting")
        except Away:
            return Verdict(current)
        if len(usage) < situation.serving or not usage:
            return Verdict(current, "a replica has no data")
        for group, share in usage.items():
            if waiting[group] >= QUEUE_LENGTH:
                self._compute_limit = share * room[group]
        capacity = max(1.0, min(KV_SHARE * min(room.values()), self._compute_limit))
        demand = sum(usage[group] * room[group] + waiting_tokens[group] for group in usage)
        required = demand / self._up - (situation.serving + situation.starting) * capacity
        spare = situation.serving * capacity - demand / self._down
        recommended = current
        if required > 0:
            recommended = current + math.ceil(required / capacity)
        elif spare >= capacity and not situation.starting:
            recommended = current - math.floor(spare / capacity)
        return Verdict(self._behavior.settle(view.now_s, current, recommended))
