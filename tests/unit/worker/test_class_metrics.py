"""Series by class: which there are, with which edges, and what a live change does to them."""

from collections.abc import Iterable

import pytest
from prometheus_client.metrics_core import Metric
from starlette.datastructures import Headers

from glm_edge.metrics.promises import TTFT_BUCKETS, Latencies
from glm_worker.messages import HeaderMatch, Signal, Slo, SloClass
from glm_worker.server.metrics.class_metrics import TIMINGS, ClassMeasures, ClassMetrics
from glm_worker.server.slo import NoHeaders


def promise(name: str = "fast", header: str | None = None, **thresholds_s: float) -> SloClass:
    match = None if header is None else HeaderMatch("x-tier", header)
    signals: dict[Signal, float] = thresholds_s or {"ttft": 0.6}  # type: ignore[assignment]
    return SloClass(name=name, header=match, thresholds_s=signals, objective=0.99)


def metrics(*classes: SloClass) -> ClassMetrics:
    made = ClassMetrics("m")
    made.promise(Slo(list(classes)))
    return made


def of(made: ClassMetrics, header: str = "") -> ClassMeasures:
    return made.of(thinking=False, headers=Headers({"x-tier": header}) if header else NoHeaders())


def values(families: Iterable[Metric], name: str, **labels: str) -> dict[str, float]:
    """Return the values of the series of a name that have these labels, by the label that tells them apart."""
    return {
        str(
            sample.labels.get("le") or sample.labels.get("signal") or sample.labels.get("slo_class") or ""
        ): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def count(made: ClassMetrics, slo_class: str, name: str = "glm_time_to_first_token_seconds_count") -> float | None:
    return values(made.collect(), name).get(slo_class)


def edges(made: ClassMetrics, slo_class: str, time: str = "time_to_first_token") -> list[float]:
    found = values(made.collect(), f"glm_{time}_seconds_bucket", slo_class=slo_class)
    return [float(edge) for edge in found if edge != "+Inf"]


def test_every_series_of_every_class_exists_from_the_start() -> None:
    made = metrics(promise("fast", ttft=0.6), promise("slow", itl=0.07, e2e=30))
    for time in TIMINGS:
        assert values(made.collect(), f"glm_{time}_seconds_count") == {"default": 0, "fast": 0, "slow": 0}
    assert values(made.collect(), "glm_requests_received_total") == {"default": 0, "fast": 0, "slow": 0}
    assert values(made.collect(), "glm_prompt_tokens_received_total") == {"default": 0, "fast": 0, "slow": 0}
    for met in ("true", "false"):
        assert values(made.collect(), "glm_slo_requests_total", met=met) == {"fast": 0, "slow": 0}
    assert values(made.collect(), "glm_slo_threshold_seconds", slo_class="slow") == {"itl": 0.07, "e2e": 30}
    assert values(made.collect(), "glm_slo_objective_ratio") == {"fast": 0.99, "slow": 0.99}


def test_a_class_has_edges_at_its_own_thresholds_only() -> None:
    made = metrics(promise("fast", ttft=0.6), promise("slow", itl=0.07, e2e=33))
    assert edges(made, "default") == list(TTFT_BUCKETS)
    assert set(edges(made, "fast")) - set(TTFT_BUCKETS) == {0.3, 0.6, 1.2}
    assert set(edges(made, "slow")) - set(TTFT_BUCKETS) == set()
    assert {0.035, 0.07, 0.14} <= set(edges(made, "slow", "inter_token_latency"))
    assert {16.5, 33, 66} <= set(edges(made, "slow", "e2e_request_latency"))
    assert {0.3, 0.6, 1.2} <= set(edges(made, "fast", "request_queue_time"))
    assert edges(made, "fast") == sorted(edges(made, "fast"))


def test_a_request_is_counted_in_its_class_and_in_no_other() -> None:
    made = metrics(promise("gold", "gold"), promise("rest"))
    of(made, "gold").observe("time_to_first_token", 0.7)
    of(made, "gold").received(11)
    assert values(made.collect(), "glm_time_to_first_token_seconds_count") == {"default": 0, "gold": 1, "rest": 0}
    assert values(made.collect(), "glm_prompt_tokens_received_total") == {"default": 0, "gold": 11, "rest": 0}
    buckets = values(made.collect(), "glm_time_to_first_token_seconds_bucket", slo_class="gold")
    assert (buckets["0.6"], buckets["0.75"], buckets["1.2"]) == (0, 1, 1)


def test_a_change_of_thresholds_begins_new_series_of_that_class_alone() -> None:
    made = metrics(promise("gold", "gold", ttft=0.6), promise("rest", ttft=5))
    for header in ("gold", ""):
        of(made, header).observe("time_to_first_token", 0.7)
        of(made, header).received(1)
    made.promise(Slo([promise("gold", "gold", ttft=0.8), promise("rest", ttft=5)]))
    assert (count(made, "gold"), count(made, "rest")) == (0, 1)
    assert {0.4, 0.8, 1.6} <= set(edges(made, "gold"))
    assert 0.6 not in edges(made, "gold")
    assert values(made.collect(), "glm_requests_received_total") == {"default": 0, "gold": 1, "rest": 1}


def test_another_match_or_objective_keeps_the_series() -> None:
    made = metrics(promise("gold", "gold"))
    of(made, "gold").observe("time_to_first_token", 0.7)
    made.promise(Slo([promise("gold", "silver")]))
    assert count(made, "gold") == 1
    assert of(made, "gold") is of(made), "gold is default now"


def test_a_class_that_is_removed_vanishes_and_comes_back_empty() -> None:
    made = metrics(promise("gold", "gold"))
    before = of(made, "gold")
    before.observe("time_to_first_token", 0.7)
    made.promise(Slo([]))
    before.observe("time_to_first_token", 0.7)  # of a request that came when the class was there
    before.judge(before.promise, None)
    assert values(made.collect(), "glm_time_to_first_token_seconds_count") == {"default": 0}
    assert values(made.collect(), "glm_slo_requests_total") == {}
    made.promise(Slo([promise("gold", "gold")]))
    assert count(made, "gold") == 0


def test_a_request_in_flight_goes_on_in_the_new_series_and_is_judged_by_the_old_promise() -> None:
    made = metrics(promise("fast", ttft=1.0))
    measures = of(made)
    promised = measures.promise
    made.promise(Slo([promise("fast", ttft=0.1)]))
    measures.observe("time_to_first_token", 0.5)
    measures.judge(promised, Latencies(ttft=0.5, ttfa=None, itl=None, e2e=0.5))
    assert count(made, "fast") == 1
    assert values(made.collect(), "glm_slo_requests_total", met="true") == {"fast": 1}


def test_what_no_class_matches_is_measured_and_not_judged() -> None:
    made = metrics(promise("gold", "gold"))
    of(made).judge(of(made).promise, None)
    of(made).observe("time_to_first_token", 0.7)
    assert count(made, "default") == 1
    assert set(values(made.collect(), "glm_slo_requests_total")) == {"gold"}


@pytest.mark.parametrize("change", [[], [promise("fast", ttft=7)], [promise("other")]], ids=["none", "edges", "other"])
def test_the_sum_over_classes_has_the_usual_edges_and_never_shrinks(change: list[SloClass]) -> None:
    made = metrics(promise("fast", ttft=0.6))
    of(made).observe("time_to_first_token", 0.65)
    made.promise(Slo(change))
    of(made).observe("time_to_first_token", 0.65)
    buckets = values(made.totals(), "glm_time_to_first_token_seconds_bucket")
    assert [float(edge) for edge in buckets if edge != "+Inf"] == list(TTFT_BUCKETS)
    assert (buckets["0.5"], buckets["0.75"], buckets["+Inf"]) == (0, 2, 2)
