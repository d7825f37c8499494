"""Neither a query that failed once nor a percentile at its threshold flaps a condition."""

from glm_operator.api.slo import Slo
from glm_operator.autoscale.signals import ClassSignals, Input, State
from glm_operator.handlers.autoscaler.steady import Kept, Steady
from unit.operator.measured_builders import NO_SERIES, READ, a_class

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms"}]})


def test_one_failed_read_is_not_told() -> None:
    steady = Steady(bad_after_s=7.5, good_after_s=12.5)
    found = [READ, NO_SERIES, READ, NO_SERIES, READ]
    assert [steady.of(each, 5.0 * number).reason for number, each in enumerate(found)] == ["MetricsRead"] * 5


def test_what_lasts_is_told_and_its_end_as_well() -> None:
    steady = Steady(bad_after_s=7.5, good_after_s=12.5)
    found = [READ, NO_SERIES, NO_SERIES, NO_SERIES, READ, READ, READ, READ]
    said = [steady.of(each, 5.0 * number).reason for number, each in enumerate(found)]
    assert said == ["MetricsRead"] * 3 + ["NoSeries"] * 4 + ["MetricsRead"]


def test_a_first_finding_is_told_at_once_and_a_clock_that_goes_back_harms_nothing() -> None:
    steady = Steady(bad_after_s=7.5, good_after_s=12.5)
    assert steady.of(NO_SERIES, 100.0) == NO_SERIES
    assert [steady.of(READ, at_s).reason for at_s in (200.0, 50.0, 63.0)] == ["NoSeries", "NoSeries", "MetricsRead"]


def kept_over(latencies: list[float | None]) -> list[dict[str, bool]]:
    kept = Kept(good_after_s=60.0)
    return [kept.of(SLO, [a_class(ttft=each)], 15.0 * number) for number, each in enumerate(latencies)]


def test_a_promise_is_missed_at_once_and_kept_again_after_a_while() -> None:
    said = kept_over([0.3, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert [each["chat"] for each in said] == [True, False, False, False, False, False, True]


def test_a_percentile_that_touches_its_threshold_does_not_flap() -> None:
    said = kept_over([0.49, 0.51] * 20)
    assert [each["chat"] for each in said] == [True] + [False] * 39


def test_a_class_without_traffic_is_neither_kept_nor_missed() -> None:
    assert kept_over([0.6, None, 0.4]) == [{"chat": False}, {}, {"chat": True}]


def test_what_is_stale_is_not_judged() -> None:
    stale = ClassSignals(name="chat", status_latency={"ttft": Input(State.STALE, 9.0)})
    assert Kept(good_after_s=60.0).of(SLO, [stale], 0.0) == {}


def test_a_miss_is_not_forgotten_for_a_look_that_brought_nothing() -> None:
    """Prometheus went away while a promise was missed, and the first numbers of the workers said that it was kept."""
    kept = Kept(good_after_s=60.0)
    stale = ClassSignals(name="chat", status_latency={"ttft": Input(State.STALE, 9.0)})
    looks = (a_class(ttft=0.6), stale, ClassSignals(name="chat"), a_class(ttft=0.4), a_class(ttft=0.4))
    times = (0.0, 15.0, 30.0, 45.0, 105.0)
    said = [kept.of(SLO, [each], at_s) for each, at_s in zip(looks, times, strict=True)]
    assert said == [{"chat": False}, {}, {}, {"chat": False}, {"chat": True}]
