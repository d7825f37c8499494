"""Every baseline with its main knob and the values that its front is drawn with. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from glm_operator.autoscale.baselines import (
    aibrix,
    dynamo,
    hpa_cpu,
    hpa_queue,
    keda_queue,
    knative,
    kubeai,
    llmd_slo,
    llmd_tokens,
    wva,
)
from glm_operator.autoscale.simulate.law import Law
from glm_operator.autoscale.simulate.run import Setup


@dataclass(frozen=True)
class Baseline:
    """A law, how to make one for a run, and its one main knob."""

    name: str
    make: Callable[[Setup, float], Law]
    knob: str
    values: tuple[float, ...]  # five, the published default among them
    default: float


BASELINES = (
    Baseline("HPA CPU", lambda _, v: hpa_cpu.HpaCpu(v), hpa_cpu.KNOB, hpa_cpu.KNOBS, hpa_cpu.DEFAULT),
    Baseline("HPA queue", lambda _, v: hpa_queue.HpaQueue(v), hpa_queue.KNOB, hpa_queue.KNOBS, hpa_queue.DEFAULT),
    Baseline("KEDA queue", lambda _, v: keda_queue.KedaQueue(v), keda_queue.KNOB, keda_queue.KNOBS, keda_queue.DEFAULT),
    Baseline("llm-d SLO", lambda s, v: llmd_slo.LlmdSlo(s.slo, v), llmd_slo.KNOB, llmd_slo.KNOBS, llmd_slo.DEFAULT),
    Baseline(
        "llm-d tokens",
        lambda s, v: llmd_tokens.LlmdTokens(s.slo, s.calibration, v),
        llmd_tokens.KNOB,
        llmd_tokens.KNOBS,
        llmd_tokens.DEFAULT,
    ),
    Baseline("WVA v2", lambda _, v: wva.Wva(v), wva.KNOB, wva.KNOBS, wva.DEFAULT),
    Baseline("KubeAI", lambda _, v: kubeai.KubeAI(v), kubeai.KNOB, kubeai.KNOBS, kubeai.DEFAULT),
    Baseline("AIBrix APA", lambda _, v: aibrix.AIBrix(v), aibrix.KNOB, aibrix.KNOBS, aibrix.DEFAULT),
    Baseline("Knative KPA", lambda _, v: knative.Knative(v), knative.KNOB, knative.KNOBS, knative.DEFAULT),
    Baseline(
        "Dynamo planner",
        lambda s, v: dynamo.Dynamo(s.slo, s.calibration, v),
        dynamo.KNOB,
        dynamo.KNOBS,
        dynamo.DEFAULT,
    ),
)
