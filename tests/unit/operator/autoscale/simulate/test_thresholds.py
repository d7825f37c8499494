"""What another threshold of mode auto would have made of a recorded range."""

import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Series
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.recorded import recorded_trace
from glm_operator.autoscale.simulate.thresholds import (
    Scores,
    auto_thinking,
    tokens_per_request,
    with_threshold,
)
from glm_operator.autoscale.simulate.trace import Arrival

BEGIN_S, END_S = 1000.0, 1600.0
LIMIT = 100_000
EDGES = [(step * 50 - 5) / 1000 for step in range(1, 21)]  # as workers count
EVEN = Scores((*((edge, step * 5.0) for step, edge in enumerate(EDGES, 1)), (float("inf"), 100.0)))
"""One request of each score from 0.00 to 0.99."""


def counter(name: str, grows: float, group: str = "g0", **labels: str) -> Series:
    """A counter that grows by so much every 5 s."""
    samples = tuple((BEGIN_S + at_s, 7.0 + grows * at_s / 5) for at_s in range(0, 601, 5))
    return Series(name, {"group": group, **labels}, samples)


def recorded(*, auto: float = 4, enabled: float = 1, thoughts: float = 500) -> list[Series]:
    """Return 600 s with 8 requests every 5 s: auto decides about so many, and so many of them think.

    Scores lie evenly from 0.00 to 0.99.
    """
    edge = [(f"{edge}", auto * step / 20) for step, edge in enumerate(EDGES, 1)]
    return [
        counter("glm_requests_received_total", 8, slo_class="chat"),
        counter("glm_prompt_tokens_received_total", 8000, slo_class="chat"),
        counter("glm_requests_total", 8, outcome="finished"),
        counter("glm_generation_tokens_total", 800, kind="answer"),
        counter("glm_generation_tokens_total", thoughts * enabled, kind="reasoning"),
        counter("glm_thinking_requests_total", enabled, thinking="enabled"),
        counter("glm_thinking_decisions_total", enabled, mode="enabled", by="auto"),
        counter("glm_thinking_decisions_total", auto - enabled, mode="disabled", by="auto"),
        counter("glm_thinking_decisions_total", 8 - auto, mode="disabled", by="request"),
        *(counter("glm_auto_thinking_score_bucket", grows, le=le) for le, grows in [*edge, ("+Inf", auto)]),
    ]


def trace(series: list[Series]) -> tuple[Arrival, ...]:
    return recorded_trace(series, Slo(), BEGIN_S, END_S)


def thinking_share(arrivals: tuple[Arrival, ...] | None) -> float:
    assert arrivals is not None
    return sum(each.is_thinking for each in arrivals) / len(arrivals)


@pytest.mark.parametrize(
    ("threshold", "share"),
    [(0, 1.0), (0.02, 0.98), (0.05, 0.95), (0.3, 0.7), (0.52, 0.48), (0.521, 0.47), (0.53, 0.47), (0.98, 0.02), (1, 0)],
)
def test_the_share_that_thinks_is_read_from_scores_and_between_two_edges_in_proportion(
    threshold: float, share: float
) -> None:
    assert EVEN.share_from(threshold) == pytest.approx(share)


def test_a_score_that_is_the_threshold_thinks_and_one_a_hundredth_less_does_not() -> None:
    of_half = Scores(tuple((edge, 0.0 if edge < 0.5 else 40.0) for edge in (*EDGES, float("inf"))))
    assert [of_half.share_from(each) for each in (0.45, 0.5, 0.55, 1.0)] == [1.0, 1.0, 0.0, 0.0]
    below = Scores(tuple((edge, 0.0 if edge < 0.49 else 40.0) for edge in (*EDGES, float("inf"))))
    assert [below.share_from(each) for each in (0.45, 0.5, 0.55, 1.0)] == [1.0, 0.0, 0.0, 0.0]
    certain = Scores((*((edge, 0.0) for edge in EDGES), (float("inf"), 40.0)))  # a score of 1.00
    assert certain.share_from(1.0) == 1.0


def test_what_was_counted_is_kept_beside_what_is_estimated() -> None:
    found = auto_thinking(recorded(auto=4, enabled=1))
    assert (found.decided, found.thought) == (480, 120)
    assert found.thought_share == 0.25
    assert found.scores.requests == 480
    assert found.scores.share_from(0.5) == pytest.approx(0.5)
    assert found.thought_tokens() == 500


def test_groups_are_added_up() -> None:
    one, two = recorded(), [Series(each.name, {**each.labels, "group": "g1"}, each.samples) for each in recorded()]
    found = auto_thinking([*one, *two])
    assert (found.decided, found.scores.requests) == (960, 960)


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.5), (0.3, 0.35), (0.5, 0.25), (0.75, 0.125), (1.0, 0.0)])
def test_as_many_requests_think_as_the_threshold_says_and_the_others_stay_as_they_were(
    threshold: float, share: float
) -> None:
    series = recorded(auto=4, enabled=1)
    before = trace(series)
    assert thinking_share(before) == pytest.approx(0.125, abs=0.01)
    after = with_threshold(before, auto_thinking(series), threshold, BEGIN_S, LIMIT)
    assert thinking_share(after) == pytest.approx(share, abs=0.01)
    assert after is not None
    assert [(each.at_s, each.prompt_tokens) for each in after] == [(each.at_s, each.prompt_tokens) for each in before]
    assert {each.output_tokens - each.thinking_tokens for each in after} == {100}, "answers stay as long"
    assert {each.thinking_tokens for each in after if each.is_thinking} <= {500}
    assert tokens_per_request(after) == pytest.approx(100 + 500 * share, rel=0.02)


def test_no_request_grows_longer_than_the_model_takes() -> None:
    series = recorded(auto=8, enabled=1, thoughts=5000)
    after = with_threshold(trace(series), auto_thinking(series), 0.0, BEGIN_S, 6200)
    assert after is not None
    assert max(each.prompt_tokens + each.output_tokens for each in after) <= 6200


def test_how_long_thoughts_are_is_not_known_where_nobody_thought() -> None:
    series = recorded(auto=4, enabled=0)
    auto = auto_thinking(series)
    assert auto.thought_tokens() is None
    assert with_threshold(trace(series), auto, 0.5, BEGIN_S, LIMIT) is None
    assert with_threshold(trace(series), auto, 1.0, BEGIN_S, LIMIT) == trace(series)


@pytest.mark.parametrize("missing", ["glm_auto_thinking_score_bucket", "glm_thinking_decisions_total"])
def test_a_recording_of_the_version_before_is_a_sentence_and_never_a_zero(missing: str) -> None:
    old = [each for each in recorded() if each.name != missing]
    with pytest.raises(InputError, match=f"there is no series {missing} in this range: its workers are of a version"):
        auto_thinking(old)


def test_a_range_without_mode_auto_is_told_as_that() -> None:
    with pytest.raises(InputError, match="no request of this range was in mode auto"):
        auto_thinking(recorded(auto=0, enabled=0))


def test_a_bucket_without_an_edge_is_refused() -> None:
    series = [*recorded(), counter("glm_auto_thinking_score_bucket", 1)]
    with pytest.raises(InputError, match="has no edge"):
        auto_thinking(series)
