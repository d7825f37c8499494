from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.api.slo import Slo
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8, Calibration
from glm_operator.autoscale.simulate.model.group import Group, Request
from glm_operator.autoscale.simulate.seen.exposition import Exposition
from glm_operator.autoscale.simulate.trace import Arrival

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "2s"}]})
PLAIN = replace(H200_AIR_FP8, decode_per_context_token_s=0.0, overhead_s=0.0, kv_tokens=10_000_000, max_batch_tokens=64)


def a_group(calibration: Calibration) -> Group:
    exposition = Exposition(SLO, 0.0)
    return Group("g0", calibration, exposition.edges, exposition.thresholds, 0.0, 60.0)


def run(calibration: Calibration, arrivals: Sequence[Arrival]) -> tuple[Group, list[Request]]:
    group = a_group(calibration)
    requests = [Request(arrival, "chat") for arrival in arrivals]
    for request in requests:
        group.add(request, request.arrival.at_s)
    group.advance(float("inf"))
    return group, requests


def chunks_of(budget: int, left: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    chunks = []
    for i, tokens in left:
        if budget > 0:
            chunks.append((i, min(tokens, budget)))
            budget -= tokens
    return chunks


def step_by_step(calibration: Calibration, arrivals: Sequence[Arrival]) -> list[tuple[float, float]]:
    """Times of the first and of the last token, with every step taken one by one. The KV cache is never full."""
    left = [each.prompt_tokens for each in arrivals]
    generated = [0] * len(arrivals)
    first, last = [0.0] * len(arrivals), [0.0] * len(arrivals)
    admitted: list[int] = []
    now, following = 0.0, 0
    while following < len(arrivals) or admitted:
        if not admitted and arrivals[following].at_s > now:
            now = arrivals[following].at_s
        decoding = [i for i in admitted if left[i] == 0]
        prefilling = [i for i in admitted if left[i] > 0]
        budget = calibration.max_batch_tokens - len(decoding) - sum(left[i] for i in prefilling)
        while following < len(arrivals) and arrivals[following].at_s <= now:
            if budget <= 0 or len(admitted) >= calibration.max_num_seqs:
                break
            admitted.append(following)
            prefilling.append(following)
            budget -= left[following]
            following += 1
        chunks = chunks_of(max(1, calibration.max_batch_tokens - len(decoding)), [(i, left[i]) for i in prefilling])
        tokens = sum(new for _, new in chunks)
        products = sum(new * (arrivals[i].prompt_tokens - left[i] + new / 2) for i, new in chunks)
        bases = [calibration.prefill_base_s] * bool(chunks) + [calibration.decode_base_s] * bool(decoding)
        now += max(bases) + calibration.prefill_s(tokens, products) + calibration.decode_s(len(decoding), 0)
        for i, new in chunks:
            left[i] -= new
            if left[i] == 0:
                first[i] = now
                decoding.append(i)
        for i in decoding:
            generated[i] += 1
            if generated[i] == arrivals[i].output_tokens:
                last[i] = now
                admitted.remove(i)
    return list(zip(first, last, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 3, allow_nan=False), st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=25
    )
)
def test_alike_steps_taken_at_once_end_when_steps_taken_one_by_one_do(rows: list[tuple[float, int, int]]) -> None:
    arrivals = [Arrival(at_s + i * 1e-4, prompt, output) for i, (at_s, prompt, output) in enumerate(sorted(rows))]
    _, requests = run(PLAIN, arrivals)
    expected = step_by_step(PLAIN, arrivals)
    assert [request.first_token_at for request in requests] == pytest.approx([first for first, _ in expected])
    assert [request.ended_at for request in requests] == pytest.approx([last for _, last in expected])


def test_one_request_takes_its_prefill_and_a_step_a_token() -> None:
    calibration = replace(H200_AIR_FP8, overhead_s=0.0)
    _, (request,) = run(calibration, [Arrival(5.0, 1000, 11)])
    prefill_s = calibration.prefill_base_s + calibration.prefill_s(1000, 1000 * 500.0)
    assert request.latency["ttft"] == pytest.approx(prefill_s)
    steps = [calibration.decode_base_s + calibration.decode_s(1, 1000 + k) for k in range(10)]
    assert request.latency["itl"] == pytest.approx(sum(steps) / 10)


def test_the_first_answer_token_comes_after_the_thinking() -> None:
    _, (request,) = run(PLAIN, [Arrival(0.0, 50, 30, thinking_tokens=20, is_thinking=True)])
    gap_s = PLAIN.decode_base_s + PLAIN.decode_s(1, 0)
    assert request.latency["ttfa"] - request.latency["ttft"] == pytest.approx(20 * gap_s)


def test_an_answer_without_thinking_begins_with_the_first_token() -> None:
    _, (request,) = run(PLAIN, [Arrival(0.0, 50, 30)])
    assert request.latency["ttfa"] == request.latency["ttft"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 900), st.integers(1, 300)), min_size=1, max_size=40))
def test_a_small_kv_cache_delays_and_loses_nothing(rows: list[tuple[float, int, int]]) -> None:
    small = replace(H200_AIR_FP8, kv_tokens=1500, max_batch_tokens=512)
    arrivals = [Arrival(at_s, prompt, output) for at_s, prompt, output in sorted(rows)]
    group, requests = run(small, arrivals)
    assert all(request.ended_at is not None for request in requests)
    assert group.is_idle
    assert group.in_flight_tokens(1e9) == 0
    assert group.counters.generated_tokens == sum(each.output_tokens for each in arrivals)


def test_a_full_kv_cache_puts_the_newest_back() -> None:
    small = replace(H200_AIR_FP8, kv_tokens=1400)
    group, (old, new) = run(small, [Arrival(0.0, 500, 400), Arrival(0.1, 500, 400)])
    assert group.counters.preemptions >= 1
    assert old.ended_at is not None
    assert new.ended_at is not None
    assert old.ended_at < new.ended_at


def test_what_a_scrape_counts_changes_no_time() -> None:
    arrivals = [Arrival(i * 0.3, 400, 80) for i in range(20)]
    _, plain = run(PLAIN, arrivals)
    group = a_group(PLAIN)
    requests = [Request(arrival, "chat") for arrival in arrivals]
    for request in requests:
        group.settle(request.arrival.at_s)
        group.add(request, request.arrival.at_s)
    for tenth in range(60, 400):
        group.settle(tenth / 10)
    group.advance(float("inf"))
    assert [each.ended_at for each in requests] == pytest.approx([each.ended_at for each in plain])


def test_the_oldest_waiting_is_seen_while_it_waits() -> None:
    one_seat = replace(PLAIN, max_num_seqs=1)
    group = a_group(one_seat)
    group.add(Request(Arrival(0.0, 10, 1000), "chat"), 0.0)
    group.add(Request(Arrival(1.0, 10, 5), "chat"), 1.0)
    group.add(Request(Arrival(2.0, 10, 5), "chat"), 2.0)
    assert group.oldest_waiting_s(7.0) == 6.0
    assert (group.num_running, group.num_waiting, group.prompt_tokens_waiting) == (1, 2, 20)


def test_busy_time_is_split_between_prefill_and_decode_without_a_rest() -> None:
    group, _ = run(PLAIN, [Arrival(i * 0.2, 300, 40) for i in range(30)])
    counters = group.counters
    assert counters.prefill_busy_s > 0
    assert counters.decode_busy_s > 0
    assert counters.prefill_busy_s + counters.decode_busy_s == pytest.approx(counters.busy_s)
    assert counters.prefill_tokens == 30 * 300


def test_a_group_that_dies_returns_what_was_in_flight() -> None:
    group = a_group(PLAIN)
    requests = [Request(Arrival(0.0, 100, 500), "chat") for _ in range(3)]
    for request in requests:
        group.add(request, 0.0)
    group.advance(1.0)
    assert set(map(id, group.abandon())) == set(map(id, requests))
    assert group.is_idle
