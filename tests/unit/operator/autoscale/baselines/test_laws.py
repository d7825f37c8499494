"""What each baseline is known for, on made-up views of a fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.baselines import hpa
from glm_operator.autoscale.baselines.aibrix import AIBrix
from glm_operator.autoscale.baselines.catalogue import BASELINES
from glm_operator.autoscale.baselines.dynamo import Dynamo
from glm_operator.autoscale.baselines.hpa_cpu import HpaCpu
from glm_operator.autoscale.baselines.hpa_queue import HpaQueue
from glm_operator.autoscale.baselines.keda_queue import KedaQueue
from glm_operator.autoscale.baselines.knative import Knative
from glm_operator.autoscale.baselines.kubeai import KubeAI
from glm_operator.autoscale.baselines.llmd_slo import LlmdSlo
from glm_operator.autoscale.baselines.llmd_tokens import LlmdTokens
from glm_operator.autoscale.baselines.wva import Wva
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Law
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8
from glm_operator.autoscale.simulate.run import simulate
from glm_operator.autoscale.simulate.seen.faults import Faults
from glm_operator.autoscale.simulate.seen.scraped import Away
from unit.operator.autoscale.simulate.simulate_builders import a_setup

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "2s", "itl": "80ms"}]})


@dataclass
class Shown:
    """A view of groups that show these values, the same at every moment. Missing names show zeros."""

    groups: int = 2
    values: Mapping[str, float] = field(default_factory=dict)  # of each group
    quantiles: Mapping[str, float] = field(default_factory=dict)
    is_away: bool = False
    now_s: float = 1000.0

    def latest(self, name: str) -> dict[str, float]:
        if self.is_away:
            raise Away
        return {f"g{i}": self.values.get(name, 0.0) for i in range(self.groups)}

    def average(self, name: str, window_s: float) -> dict[str, float]:
        return self.latest(name)

    def rate(self, name: str, window_s: float) -> dict[str, float]:
        return self.latest(name)

    def increase(self, name: str, window_s: float) -> dict[str, float]:
        return {group: value * window_s for group, value in self.latest(name).items()}

    def quantile(self, histogram: str, share: float, window_s: float) -> float | None:
        if self.is_away:
            raise Away
        return self.quantiles.get(histogram)


def asked(law: Law, shown: Shown, spec: int = 2, serving: int = 2, times: int = 1) -> int:
    """The last of several answers, a period apart, with nothing changed in between."""
    desired = spec
    for _ in range(times):
        situation = Situation(spec_groups=spec, serving=serving, starting=spec - serving)
        desired = law.decide(shown, situation).desired  # type: ignore[arg-type]
        shown.now_s += law.period_s
    return desired


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda each: each.name)
def test_every_baseline_holds_while_prometheus_is_away(baseline: object) -> None:
    law = next(each for each in BASELINES if each is baseline).make(a_setup(), 1.0)
    assert asked(law, Shown(is_away=True), spec=5, serving=5, times=20) == 5


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda each: each.name)
def test_every_baseline_has_five_values_and_its_default_among_them(baseline: object) -> None:
    found = next(each for each in BASELINES if each is baseline)
    assert len(found.values) == 5
    assert found.default in found.values


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda each: each.name)
def test_every_baseline_runs_through_lost_scrapes(baseline: object) -> None:
    found = next(each for each in BASELINES if each is baseline)
    setup = a_setup(rps=3.0, faults=Faults(lost_share=0.3, away=((200.0, 260.0),)))
    result = simulate(setup, found.make(setup, found.default))
    assert all(1 <= point.desired <= 10 for point in result.points)


def test_hpa_grows_by_four_or_twice_and_shrinks_to_the_most_of_five_minutes() -> None:
    behavior = hpa.Behavior()
    assert behavior.settle(0.0, 2, 100) == 6
    assert behavior.settle(15.0, 6, 100) == 12
    assert behavior.settle(30.0, 12, 3) == 12
    assert behavior.settle(314.0, 12, 3) == 12
    assert behavior.settle(316.0, 12, 3) == 3


def test_hpa_takes_missing_pods_for_full_when_it_shrinks() -> None:
    assert hpa.by_pods({"a": 0.1}, 1.0, 2, 2) == 2
    assert hpa.by_pods({"a": 0.1, "b": 0.1}, 1.0, 2, 2) == 1


def test_hpa_takes_unready_pods_for_idle_when_it_grows() -> None:
    assert hpa.by_pods({"a": 2.0, "b": 2.0}, 1.0, 2, 2) == 4
    assert hpa.by_pods({"a": 2.0, "b": 2.0}, 1.0, 4, 2) == 4


def test_hpa_on_cpu_grows_while_engines_are_busy() -> None:
    assert asked(HpaCpu(), Shown(values={"busy_seconds_total": 1.0})) == 3


def test_hpa_on_the_queue_follows_the_mean_of_pods() -> None:
    assert asked(HpaQueue(), Shown(values={"glm_num_requests_waiting": 10.0})) == 4


def test_keda_reads_an_empty_result_as_zero_and_drains_everything() -> None:
    assert asked(KedaQueue(), Shown(values={"glm_num_requests_waiting": 10.0})) == 4
    assert asked(KedaQueue(), Shown(groups=0), spec=8, serving=8, times=40) == 0


def test_llmd_slo_grows_above_055_and_loses_a_pod_every_two_minutes_on_nan() -> None:
    late = Shown(quantiles={"glm_time_to_first_token_seconds": 2.2})
    assert asked(LlmdSlo(SLO), late) == 4
    law, blind = LlmdSlo(SLO), Shown()
    assert asked(law, blind, spec=5, serving=5) == 4
    assert asked(law, blind, spec=4, serving=4) == 4
    assert asked(law, blind, spec=4, serving=4, times=7) == 3


def test_llmd_tokens_grows_by_prefill_that_is_due_and_by_kv() -> None:
    assert asked(LlmdTokens(SLO, H200_AIR_FP8), Shown(values={"glm_prompt_tokens_waiting": 40_000.0})) == 4
    assert asked(LlmdTokens(SLO, H200_AIR_FP8), Shown(values={"glm_kv_cache_usage_ratio": 0.95})) == 3


def test_wva_counts_pending_replicas_as_capacity() -> None:
    full = {"glm_kv_cache_usage_ratio": 0.95, "glm_kv_cache_tokens": 100_000.0}
    assert asked(Wva(), Shown(values=full)) == 3
    assert asked(Wva(), Shown(values=full), spec=3, serving=2) == 3


def test_wva_holds_when_a_replica_has_no_data() -> None:
    idle = {"glm_kv_cache_tokens": 100_000.0}
    assert asked(Wva(), Shown(groups=1, values=idle), spec=3, serving=3, times=20) == 3
    assert asked(Wva(), Shown(groups=3, values=idle), spec=3, serving=3, times=20) == 0


def test_kubeai_begins_with_a_window_of_zeros_and_shrinks_under_load() -> None:
    law, busy = KubeAI(), Shown(values={"glm_num_requests_running": 200.0})
    assert asked(law, busy, times=10) == 1
    assert asked(law, busy, times=50) == 4


def test_aibrix_cascades_while_pods_pend() -> None:
    full = Shown(values={"glm_kv_cache_usage_ratio": 1.0})
    law = AIBrix()
    assert [asked(law, full, spec=spec, serving=2) for spec in (2, 4, 8)] == [4, 8, 16]


def test_knative_panics_on_twice_the_load_and_does_not_shrink_in_panic() -> None:
    law = Knative()
    assert asked(law, Shown(values={"glm_num_requests_running": 150.0})) == 5
    assert asked(law, Shown(now_s=1010.0), spec=5, serving=5) == 5
    assert asked(law, Shown(now_s=1100.0), spec=5, serving=5) == 2


def test_dynamo_adds_one_only_when_every_engine_is_late_and_holds_while_scaling() -> None:
    late = Shown(now_s=100.0, values={"glm_prompt_tokens_waiting": 100_000.0})
    assert asked(Dynamo(SLO, H200_AIR_FP8), late) == 3
    assert asked(Dynamo(SLO, H200_AIR_FP8), late, spec=3, serving=2) == 3


def test_dynamo_keeps_the_floor_of_its_forecast() -> None:
    values = {
        "glm_requests_received_total": 2.0,
        "glm_requests_total": 2.0,
        "glm_prompt_tokens_received_total": 4000.0,
        "glm_generation_tokens_total": 4000.0,
    }
    assert asked(Dynamo(SLO, H200_AIR_FP8), Shown(values=values)) >= 4
