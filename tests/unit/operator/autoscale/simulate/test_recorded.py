import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Series
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.recorded import recorded_trace

BOTH = Slo.model_validate(
    {
        "classes": [
            {"name": "deep", "match": {"thinking": "Enabled"}, "ttft": "4s"},
            {"name": "chat", "ttft": "2s"},
        ]
    }
)


def counter(name: str, grows: float, group: str = "g0", until_s: int = 600, **labels: str) -> Series:
    """A counter that grows by so much every 5 s."""
    samples = tuple((1000.0 + at_s, 7.0 + grows * at_s / 5) for at_s in range(0, until_s + 1, 5))
    return Series(name, {"group": group, **labels}, samples)


def test_a_request_comes_for_each_that_was_counted_with_the_mean_of_its_prompts() -> None:
    series = [
        counter("glm_requests_received_total", 2, slo_class="chat"),
        counter("glm_prompt_tokens_received_total", 3000, slo_class="chat"),
        counter("glm_requests_total", 2, outcome="finished"),
        counter("glm_generation_tokens_total", 400, kind="answer"),
    ]
    trace = recorded_trace(series, BOTH, 1000.0, 1600.0)
    assert len(trace) == 240
    assert {each.prompt_tokens for each in trace} == {1500}
    assert {each.output_tokens for each in trace} == {200}
    assert trace[0].at_s == pytest.approx(1.25)
    assert trace[-1].at_s == pytest.approx(598.75)


def test_groups_are_added_up_and_the_range_is_kept() -> None:
    series = [counter("glm_requests_received_total", 1, group, slo_class="chat") for group in ("g0", "g1", "g2")]
    assert len(recorded_trace(series, BOTH, 1000.0, 1600.0)) == 360
    assert len(recorded_trace(series, BOTH, 1200.0, 1300.0)) == 60


def test_thinking_goes_to_the_class_that_is_for_it() -> None:
    series = [
        counter("glm_requests_received_total", 1, slo_class="deep"),
        counter("glm_requests_received_total", 3, slo_class="chat"),
        counter("glm_requests_total", 4, outcome="finished"),
        counter("glm_generation_tokens_total", 400, kind="answer"),
        counter("glm_generation_tokens_total", 900, kind="reasoning"),
        counter("glm_thinking_requests_total", 1, thinking="enabled"),
    ]
    trace = recorded_trace(series, BOTH, 1000.0, 1600.0)
    deep = [each for each in trace if each.is_thinking]
    assert {each.thinking_tokens for each in deep} == {900}
    assert {each.output_tokens for each in deep} == {1000}
    assert len(deep) == len(trace) / 4


def test_a_counter_that_began_anew_loses_nothing_of_the_new_life() -> None:
    samples = ((1000.0, 90.0), (1005.0, 100.0), (1010.0, 4.0), (1015.0, 6.0))
    series = [Series("glm_requests_received_total", {"slo_class": "chat"}, samples)]
    assert len(recorded_trace(series, BOTH, 1000.0, 1020.0)) == 16


def test_nothing_recorded_is_refused() -> None:
    with pytest.raises(InputError, match="no series glm_requests_received_total"):
        recorded_trace([], BOTH, 0.0, 10.0)
    with pytest.raises(InputError, match="no request arrived"):
        recorded_trace([counter("glm_requests_received_total", 0)], BOTH, 1000.0, 1600.0)
