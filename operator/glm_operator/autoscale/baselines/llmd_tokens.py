"""llm-d's token-aware law: prompt tokens in flight over what prefill does in time, and the KV cache.

Source: llm-d's token-aware guide: max(ceil(uncached tokens in flight / V_P / theta), ceil(KV / 0.8)). V_P is a chunk
over the median TTFT of an idle engine; theta is the promised TTFT less what the mean prompt takes. An HPA carries it
out.
"""

import math

from glm_operator.api.slo import Slo
from glm_operator.autoscale.baselines.hpa import SYNC_S, Behavior
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.model.capacity import tightest
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "KV target"
KNOBS = (0.5, 0.65, 0.8, 0.9, 0.95)
DEFAULT = 0.8
PROMPT_WINDOW_S = 300.0
LEAST_THETA_S = 0.1


class LlmdTokens:
    name = "llm-d tokens"
    period_s = SYNC_S

    def __init__(self, slo: Slo, calibration: Calibration, kv_target: float = DEFAULT) -> None:
        chunk = calibration.max_batch_tokens
        idle_ttft_s = calibration.prefill_base_s + calibration.prefill_s(chunk, chunk * chunk / 2)
        self._velocity = chunk / idle_ttft_s
        self._ttft_s = tightest(slo, "ttft") or math.inf
        self._kv_target = kv_target
        self._behavior = Behavior()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            tokens = sum(view.latest("glm_prompt_tokens_waiting").values())
            tokens += sum(view.latest("glm_prompt_tokens_left").values())
            kv_used = sum(view.latest("glm_kv_cache_usage_ratio").values())
            prompts = sum(view.increase("glm_prompt_tokens_received_total", PROMPT_WINDOW_S).values())
            requests = sum(view.increase("glm_requests_received_total", PROMPT_WINDOW_S).values())
        except Away:
            return Verdict(current)
        mean_prompt = prompts / requests if requests else 0.0
        theta_s = max(LEAST_THETA_S, self._ttft_s - mean_prompt / self._velocity)
        recommended = max(math.ceil(tokens / self._velocity / theta_s), math.ceil(kv_used / self._kv_target))
        return Verdict(self._behavior.settle(view.now_s, current, recommended))
