"""What users of other autoscalers complained of, each thread as a test of the pure law."""

from dataclasses import replace
from itertools import pairwise
from math import ceil, nan

import pytest

from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.estimate import latency
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import SHORT_WINDOW_S, Buckets, Latencies, Series
from glm_operator.autoscale.signals import Signals, State
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    GROUPS_PER_RPS,
    NO_SLO,
    PREFILL,
    PROMPT,
    Story,
    a_fleet,
    a_group,
    a_scaling,
    a_situation,
    a_slo,
    idle,
    knowing,
    of,
    quiet,
    raw,
    silence,
    slow,
    under,
    unknown,
)

CARRIED = 0.8 / GROUPS_PER_RPS
"""Requests a second that a group carries at the planned use."""


def without_traffic(now_s: float) -> Latencies:
    """What a latency query brings while nothing runs: histograms of zeros, of which any quotient is 0/0."""
    counts = ((0.5, 0.0), (2.0, 0.0), (float("inf"), 0.0))
    return Latencies(now_s, (Buckets("chat", "ttft", SHORT_WINDOW_S, counts),))


def test_an_idle_deployment_goes_down_though_its_latencies_are_0_over_0() -> None:
    """dynamo#6985, #11294: NaN at idle, so it never went down. Idle is known from fresh samples of every group."""
    story = Story(groups=3, slo=a_slo(), memory=Memory())

    def seen(story: Story) -> Signals:
        series = [each for place in range(story.serving) for each in raw(f"g{place}", 0.0, story.now_s)]
        expected = [f"g{place}" for place in range(story.serving)]
        return read(series, without_traffic(story.now_s), story.slo, expected, story.now_s, 30.0)

    story.run(600.0, seen)

    assert story.groups == 1
    assert story.last is not None
    assert story.last.inputs["requests running"].state is State.IDLE  # type: ignore[attr-defined]


@pytest.mark.parametrize("known_every", [2, 3, 10])
def test_gaps_in_the_metrics_do_not_reset_the_timer_of_a_scale_down(known_every: int) -> None:
    """ray#64725: a NaN that holds restarted the timer for ever."""
    story = Story(groups=3)
    turn = iter(range(10_000))

    story.run(420.0, lambda story: quiet(story) if next(turn) % known_every == 0 else unknown(story))

    assert story.groups < 3


def test_groups_of_other_deployments_say_nothing_of_this_one() -> None:
    """ray#64725: the query of the percentile spanned other deployments."""
    own, others = raw("g0", 0.5), raw("other-0", 50.0)

    signals = read([*others, *own], None, NO_SLO, ["g0"], BEGAN_S, 30.0)

    assert set(signals.groups) == {"g0"}
    assert signals.groups["g0"].arrivals == pytest.approx(0.5)


def test_a_group_stays_if_the_one_that_is_left_could_not_carry_the_load() -> None:
    """dynamo#9294: 2 <-> 1, for the load that the survivor would get was ignored."""
    story = Story(groups=2, start_s=30.0)

    story.run(3600.0, under(0.97 * CARRIED))

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "Survivors"


def test_what_a_group_measures_in_its_cold_start_does_not_count_as_what_it_can_do() -> None:
    """dynamo#12430: samples of a cold start poisoned the capacity model."""
    cold = a_group("g1", 1.0, serving_since_s=BEGAN_S - 10.0, prefill_busy=0.9, decode_busy=0.9)
    signals = of(a_group("g0", 1.0), cold)

    decision, memory = decide(a_scaling(), NO_SLO, a_situation(2), signals, Memory(), BEGAN_S)

    assert memory.rates.prefill_tokens_per_s == pytest.approx(PREFILL)
    assert decision.desired == 2


def test_the_queue_of_a_group_in_its_cold_start_counts() -> None:
    """dynamo#12430, the other half: only its rates are left out."""
    cold = a_group("g1", 1.0, serving_since_s=BEGAN_S - 10.0, prompt_tokens_waiting=40 * PREFILL)
    signals = of(a_group("g0", 1.0), cold)

    decision, _ = decide(a_scaling(), NO_SLO, a_situation(2), signals, knowing(), BEGAN_S)

    assert decision.inputs["backlog, s of work"].value == pytest.approx(40.0)  # type: ignore[attr-defined]


def test_a_decision_under_way_is_not_decided_again() -> None:
    """dynamo#9774: new decisions while a scale was under way."""
    story = Story(groups=2, start_s=300.0)

    story.run(295.0, under(4.0 * CARRIED))

    assert story.moves == [(2, 4)]


def test_a_queue_is_seen_though_throughput_does_not_change() -> None:
    """dynamo#10528: TTFT of 160 s on average, and the estimate from throughput never moved."""
    served = 1.0 / GROUPS_PER_RPS
    story = Story(groups=1, slo=a_slo())
    story.run(60.0, under(0.7 * served))
    assert story.groups == 1

    waiting = {"requests_waiting": 300.0, "prompt_tokens_waiting": 300.0 * PROMPT, "oldest_waiting_s": 160.0}
    story.run(10.0, under(0.7 * served, **waiting))

    assert story.groups > 1
    assert story.last is not None


@pytest.mark.parametrize("signal", ["ttft", "itl"])
def test_a_promise_that_one_request_alone_breaks_adds_no_group_and_says_so(signal: str) -> None:
    """dynamo#8861, #11624: such an SLO held replicas at max."""
    slo = a_slo(**{signal: "10ms"})
    story = Story(groups=1, slo=slo)

    story.run(
        900.0, lambda story: replace(a_fleet(1, 0.8, story.now_s), classes=(slow(0.5, signal, at_s=story.now_s),))
    )

    assert story.moves == []
    assert story.last is not None
    assert "chat" in story.last.infeasible
    assert story.last.limited_by == "Infeasible"


def test_a_promise_below_the_floor_of_the_planner_adds_no_group() -> None:
    """dynamo#8861: the floor may be known before anything was measured."""
    story = Story(groups=1, slo=a_slo(e2e="1s"), memory=Memory())

    story.run(
        300.0,
        lambda story: replace(a_fleet(1, 0.8, story.now_s), classes=(slow(5.0, "e2e", at_s=story.now_s),)),
        floor_s={"e2e": 3.0},
    )

    assert story.moves == []
    assert story.last is not None
    assert "3 s" in story.last.infeasible["chat"]


def test_groups_are_not_doubled_again_and_again_while_pods_pend() -> None:
    """aibrix#2670: 2 -> 4 -> 8 -> 16, as replicas were multiplied while the queue grew and pods were pending."""
    story = Story(groups=2, start_s=10_000.0, scaling=a_scaling(up={"groups": 100}))
    rps = 6.0 * CARRIED
    excess = rps - 2.0 / GROUPS_PER_RPS

    def growing(story: Story) -> Signals:
        waiting = excess * (story.now_s - BEGAN_S) / 2.0
        age_s = (story.now_s - BEGAN_S) * 0.6
        return a_fleet(
            2,
            rps,
            story.now_s,
            requests_waiting=waiting,
            prompt_tokens_waiting=waiting * PROMPT,
            oldest_waiting_s=age_s,
        )

    story.run(600.0, growing)

    assert story.numbers[2] >= 6
    assert max(story.numbers) <= 12  # never beyond what a backlog may add to what arrives
    assert max(story.numbers) == story.numbers[12]  # and no more from a minute on, however the queue grows


def test_ranks_of_a_group_are_one_group() -> None:
    """llm-d-autoscaling#1302: groups and pods were mixed up, and scaling was blocked for ever."""
    series = [
        each
        for place in range(2)
        for rank in range(4)
        for each in raw(
            f"g{place}",
            2.0 * CARRIED / 4.0,
            rank=str(rank),
            pod=f"g{place}-{rank}",
            instance=f"10.0.{place}.{rank}:9090",
        )
    ]
    signals = read(series, None, NO_SLO, ["g0", "g1"], BEGAN_S, 30.0)

    decision, _ = decide(a_scaling(), NO_SLO, a_situation(2, gpus_per_group=32), signals, knowing(), BEGAN_S)

    assert len(signals.groups) == 2
    assert 2 < decision.desired <= 4  # groups, and not pods, of which there are 8


@pytest.mark.parametrize("load", [0.9, 1.0, 2.0, 2.95])
def test_five_per_cent_of_noise_never_flips_the_number_of_groups(load: float) -> None:
    """llm-d-autoscaling#1427: 1 to 5 % of noise flipped ceil and floor every 15 s."""
    noise = iter([1.0, 1.05, 0.97, 1.02, 0.95, 1.01, 1.04, 0.96, 0.99, 1.03] * 100)
    story = Story(groups=2)

    story.run(3600.0, lambda story: a_fleet(story.serving, load * CARRIED * next(noise), story.now_s))

    ups = [after > before for before, after in story.moves]
    assert sum(first != second for first, second in pairwise(ups)) == 0


def test_labels_that_do_not_match_are_missing_metrics_and_no_steady_state() -> None:
    """llm-d#2310: a label mismatch; desired echoed current, every check was green, and the autoscaler was inert."""
    renamed = [Series(each.name, {"pod_group": "g0"}, each.samples) for each in raw("g0", 50.0)]
    signals = read(renamed, None, NO_SLO, ["g0"], BEGAN_S, 30.0)

    decision, _ = decide(a_scaling(), NO_SLO, a_situation(1), signals, knowing(), BEGAN_S)

    assert (decision.desired, decision.cause, decision.limited_by) == (1, "NoData", "MissingMetrics")
    assert decision.inputs["arrivals, requests/s"].state is State.UNKNOWN  # type: ignore[attr-defined]
    assert "g0" in decision.message


def test_what_a_deleted_pod_left_behind_holds_nobody_up() -> None:
    """llm-d-router#2529: gauges of deleted pods were never pruned, so it went up and never down."""
    story = Story(groups=2)

    def seen(story: Story) -> Signals:
        series = [each for place in range(story.serving) for each in raw(f"g{place}", 0.0, story.now_s)]
        dead = raw("g7", 9.0, story.now_s)
        return read([*series, *dead], None, NO_SLO, [f"g{place}" for place in range(story.serving)], story.now_s, 30.0)

    story.run(400.0, seen)

    assert story.groups == 1


def test_series_of_several_ranks_add_up_whatever_their_order() -> None:
    """gateway-api-inference-extension#2950, kthena#1782: ranks overwrote each other, and the last one won."""
    series = [each for rank in range(3) for each in raw("g0", 1.0 + rank, rank=str(rank))]

    forward = read(series, None, NO_SLO, ["g0"], BEGAN_S, 30.0).groups["g0"]
    backward = read(series[::-1], None, NO_SLO, ["g0"], BEGAN_S, 30.0).groups["g0"]

    assert forward.arrivals == pytest.approx(6.0)
    assert backward.arrivals == pytest.approx(6.0)
    assert forward.max_running == backward.max_running == 96.0


def test_a_queue_on_one_group_is_not_averaged_away() -> None:
    """vllm#36748: waiting piled up on a few ranks, and the average hid it."""
    stuck = a_group("g3", 0.1, requests_waiting=20.0, prompt_tokens_waiting=20.0 * PROMPT, oldest_waiting_s=9.0)
    story = Story(groups=4, slo=a_slo())

    def seen(story: Story) -> Signals:
        others = [a_group(f"g{place}", 0.1, story.now_s) for place in range(story.serving)]
        return of(*others, replace(stuck, at_s=story.now_s))

    story.run(600.0, seen)

    assert story.last is not None
    assert story.last.inputs["oldest waiting, s"].value == 9.0  # type: ignore[attr-defined]
    assert min(story.numbers) == 4


def test_a_time_beyond_the_last_bucket_is_late_and_never_unknown() -> None:
    """vllm#15167: too few buckets for long requests."""
    counts = ((0.5, 1.0), (1.0, 2.0), (2.0, 3.0), (float("inf"), 100.0))

    assert latency.percentile(counts, 95) == 2.0
    assert latency.share_within(counts, 2.0) == pytest.approx(0.03)


def test_unknown_latencies_do_not_override_a_demand_that_is_known() -> None:
    """keda#6659: a fallback overrode a healthy trigger."""
    decision, _ = decide(a_scaling(), a_slo(), a_situation(4), a_fleet(4, 5.0 * CARRIED), knowing(), BEGAN_S)

    assert (decision.desired, decision.cause) == (5, "Demand")


def test_a_source_that_comes_and_goes_moves_nothing() -> None:
    """keda#4249: replicas fluttered under a fallback."""
    story = Story(groups=3)
    turn = iter(range(10_000))

    story.run(3600.0, lambda story: unknown(story) if next(turn) % 7 < 4 else a_fleet(3, 2.6 * CARRIED, story.now_s))

    assert story.moves == []


def test_a_full_cache_asks_for_more_though_its_use_cannot_pass_1() -> None:
    """LLMKube#482: a metric that is bounded below its target can never fire."""
    full = {"kv_usage": 1.0, "prompt_tokens_waiting": 60_000.0, "requests_waiting": 4.0}

    decision, _ = decide(a_scaling(), NO_SLO, a_situation(2), a_fleet(2, 0.5, **full), knowing(), BEGAN_S)

    assert decision.desired == ceil(2 / 0.85)
    assert decision.cause == "KVCache"


def test_a_group_that_is_up_and_serves_nobody_is_not_idle() -> None:
    """LLMKube#1624: up but not serving, with requests that wait and none that runs."""
    stuck = [
        replace(each, samples=tuple((at_s, 1000.0) for at_s, _ in each.samples))
        if each.name.endswith("_total")
        else each
        for each in raw("g1", 1.0)
        if each.name not in ("glm_num_requests_running", "glm_num_requests_waiting")
    ]
    stuck += [
        replace(each, samples=tuple((at_s, 5.0) for at_s, _ in each.samples))
        for each in raw("g1", 1.0)
        if each.name == "glm_num_requests_waiting"
    ]
    stuck += [
        replace(each, samples=tuple((at_s, 0.0) for at_s, _ in each.samples))
        for each in raw("g1", 1.0)
        if each.name == "glm_num_requests_running"
    ]
    signals = read([*raw("g0", 0.0), *stuck], None, NO_SLO, ["g0", "g1"], BEGAN_S, 30.0)
    assert signals.groups["g1"].is_hung

    story = Story(groups=2)
    story.run(
        900.0,
        lambda story: replace(signals, groups={n: replace(g, at_s=story.now_s) for n, g in signals.groups.items()}),
    )

    assert min(story.numbers) == 2


def test_one_silent_group_keeps_every_group_and_still_lets_groups_come() -> None:
    """llm-d's SLO guide, section 1: a scrape loss under load read as idle and drained a pod every 120 s."""
    story = Story(groups=3)

    def lost(story: Story, rps: float) -> Signals:
        return replace(of(a_group("g0", rps, story.now_s)), expected=silence(3).expected)

    story.run(1200.0, lambda story: lost(story, 0.0))
    assert story.moves == []

    story.run(10.0, lambda story: lost(story, 5.0 * CARRIED))
    assert story.groups > 3


def test_idle_is_known_from_every_group_or_not_at_all() -> None:
    """dynamo#6985: what is not fresh from every group is no idleness."""
    signals = replace(of(idle("g0"), idle("g1")), stale=frozenset({"g1"}))

    decision, _ = decide(a_scaling(), NO_SLO, a_situation(2), signals, knowing(), BEGAN_S)

    assert decision.inputs["requests running"].state is State.STALE  # type: ignore[attr-defined]
    assert decision.limited_by == "MissingMetrics"


def test_numbers_that_are_no_numbers_are_unknown() -> None:
    """dynamo#6985: NaN is neither 0 nor a reason to move."""
    series = [
        Series(each.name, each.labels, (*each.samples[:-1], (each.samples[-1][0], nan))) for each in raw("g0", 9.0)
    ]

    group = read(series, None, NO_SLO, ["g0"], BEGAN_S, 30.0).groups["g0"]

    assert "requests_running" in group.missing
    assert group.arrivals == pytest.approx(9.0)  # from the samples before
