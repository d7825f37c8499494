from math import inf, nan

import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import (
    BURN_WINDOW_S,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
    Series,
)
from glm_operator.autoscale.signals import ClassSignals, GroupSignals, Signals, State
from unit.operator.autoscale.law_builders import BEGAN_S, KV, NO_SLO, PROMPT, a_group, a_series, a_slo, raw

MONTH_S = 30 * 86_400.0


def looked(series: list[Series], *expected: str, now_s: float = BEGAN_S, warm_up_s: float = 30.0) -> Signals:
    return read(series, None, NO_SLO, expected or ("g0",), now_s, warm_up_s)


def one(series: list[Series], now_s: float = BEGAN_S, warm_up_s: float = 30.0) -> GroupSignals:
    return looked(series, now_s=now_s, warm_up_s=warm_up_s).groups["g0"]


def changed(series: list[Series], name: str, *values: float) -> list[Series]:
    """Return the series with the newest samples of one metric replaced."""
    return [
        Series(
            each.name,
            each.labels,
            (
                *each.samples[: -len(values)],
                *((at_s, value) for (at_s, _), value in zip(each.samples[-len(values) :], values, strict=True)),
            ),
        )
        if each.name == name
        else each
        for each in series
    ]


def without(series: list[Series], *names: str) -> list[Series]:
    return [each for each in series if each.name not in names]


def test_what_a_worker_exposes_is_read_whole() -> None:
    group, expected = one(raw("g0", 1.0)), a_group("g0", 1.0)

    assert group.missing == frozenset()
    assert group.arrivals == pytest.approx(1.0)
    assert group.prompt_tokens_arriving == pytest.approx(PROMPT)
    assert group.tokens_generated == pytest.approx(expected.tokens_generated)
    assert group.decode_steps == pytest.approx(expected.decode_steps)
    assert (group.kv_tokens, group.cold_start_s, group.serving_since_s) == (KV, 42.0, BEGAN_S - 3600.0)


def test_refused_requests_do_not_count_as_ended() -> None:
    assert one(raw("g0", 1.0)).requests_ended == pytest.approx(1.0)


def test_a_counter_that_began_anew_is_no_negative_rate() -> None:
    times = [BEGAN_S - 10.0 + 5.0 * place for place in range(3)]
    restarted = Series(
        "glm_requests_received_total", {"group": "g0"}, tuple(zip(times, (1000.0, 4.0, 10.0), strict=True))
    )

    group = one([*without(raw(), "glm_requests_received_total"), restarted])

    assert group.arrivals == pytest.approx(1.0)


@pytest.mark.parametrize("value", [nan, inf, -inf, -1.0, 1e300])
def test_a_gauge_that_is_no_measurement_is_missing_and_not_zero(value: float) -> None:
    group = one(changed(raw(), "glm_num_requests_running", value))

    assert group.missing == {"requests_running"}


def test_workers_of_the_version_before_lack_metrics_and_report_no_zeros() -> None:
    group = one(without(raw(), "glm_oldest_waiting_seconds", "glm_requests_received_total", "glm_prefill_tokens_total"))

    assert group.missing == {"oldest_waiting_s"}
    assert group.arrivals is None
    assert group.prefill_tokens is None


def test_the_worst_rank_counts_for_age_and_cache() -> None:
    ranks = [*raw("g0", rank="0"), *changed(raw("g0", rank="1"), "glm_oldest_waiting_seconds", 7.0)]
    ranks = [*ranks, *changed(raw("g0", rank="2"), "glm_kv_cache_usage_ratio", 0.9)]

    group = one(ranks)

    assert (group.oldest_waiting_s, group.kv_usage, group.kv_tokens) == (7.0, 0.9, 3 * KV)


def test_one_pod_that_two_jobs_scrape_counts_once() -> None:
    twice = [
        each
        for job in ("pods", "annotations")
        for each in raw("g0", 1.0, job=job, instance="10.0.0.1:9090", pod="g0-0")
    ]

    assert one(twice).arrivals == pytest.approx(1.0)


def test_a_pod_that_was_replaced_does_not_count_beside_its_successor() -> None:
    before = raw("g0", 4.0, now_s=BEGAN_S - 15.0, pod="g0-0", instance="10.0.0.1:9090")
    after = raw("g0", 1.0, pod="g0-0", instance="10.0.0.2:9090")

    group = one([*before, *after])

    assert group.arrivals == pytest.approx(1.0)
    assert group.max_running == 32.0


def test_a_group_is_as_old_as_its_oldest_rank() -> None:
    ranks = [*raw("g0", pod="g0-0"), *raw("g0", now_s=BEGAN_S - 30.0, pod="g0-1")]

    assert looked(ranks).stale == {"g0"}


@pytest.mark.parametrize(("age_s", "is_stale"), [(0.0, False), (15.0, False), (15.5, True), (600.0, True)])
def test_a_group_scraped_every_5_s_is_stale_after_15_s(age_s: float, is_stale: bool) -> None:
    assert (looked(raw(), now_s=BEGAN_S + age_s).stale == {"g0"}) == is_stale


@pytest.mark.parametrize(("age_s", "is_stale"), [(44.0, False), (46.0, True)])
def test_a_group_scraped_every_15_s_is_stale_after_45_s(age_s: float, is_stale: bool) -> None:
    rare = [Series(each.name, each.labels, each.samples[::-3][::-1]) for each in raw()]

    assert (looked(rare, now_s=BEGAN_S + age_s).stale == {"g0"}) == is_stale


def test_samples_from_the_future_are_not_fresh() -> None:
    assert looked(raw(), now_s=BEGAN_S - 60.0).stale == {"g0"}


def test_samples_out_of_order_say_the_same() -> None:
    mixed = [Series(each.name, each.labels, each.samples[::-1]) for each in raw()]

    assert one(mixed) == one(raw())


def test_a_group_that_began_within_the_window_adds_no_load_to_it() -> None:
    """Of 2 requests a second, the new group took half for the last 10 s."""
    old = a_series("glm_requests_received_total", 0.0, "g0")
    risen = tuple(
        (at_s, 2.0 * (at_s - BEGAN_S) if at_s <= BEGAN_S - 10.0 else at_s - BEGAN_S - 10.0) for at_s, _ in old.samples
    )
    old = Series(old.name, old.labels, tuple((at_s, 1000.0 + value) for at_s, value in risen))
    new = Series(old.name, {**old.labels, "group": "g1"}, tuple((BEGAN_S - 10.0 + at, at) for at in (0.0, 5.0, 10.0)))
    rest = [each for name in ("g0", "g1") for each in without(raw(name), "glm_requests_received_total")]
    rest = [
        Series(each.name, each.labels, ((BEGAN_S, BEGAN_S - 10.0),))
        if each.name == "glm_group_serving_timestamp_seconds" and each.labels["group"] == "g1"
        else each
        for each in rest
    ]

    groups = looked([*rest, old, new], "g0", "g1").groups

    assert (groups["g0"].arrivals or 0.0) + (groups["g1"].arrivals or 0.0) == pytest.approx(2.0)


def test_rates_of_what_a_group_can_do_leave_out_its_warm_up() -> None:
    series = changed(raw(), "glm_group_serving_timestamp_seconds", BEGAN_S - 40.0)
    slow_start = Series(
        "glm_prefill_tokens_total",
        {"group": "g0"},
        tuple((BEGAN_S - 40.0 + 5.0 * place, 10.0 * place if place < 6 else 1000.0 * place) for place in range(9)),
    )

    group = one([*without(series, "glm_prefill_tokens_total"), slow_start])

    assert group.prefill_tokens == pytest.approx(200.0)
    assert group.arrivals == pytest.approx(1.0)


def test_a_group_whose_requests_run_and_whose_counters_stand_still_is_hung() -> None:
    still = [
        Series(each.name, each.labels, tuple((at_s, 7.0) for at_s, _ in each.samples))
        if each.name.endswith("_total")
        else each
        for each in raw()
    ]

    assert one(still).is_hung
    assert not one(raw()).is_hung


def test_a_request_that_an_idle_group_has_just_got_hangs_nowhere() -> None:
    """Its counters stood still because nothing was there to compute, and for a minute they were believed no more."""
    idle = [
        Series(each.name, each.labels, tuple((at_s, 7.0) for at_s, _ in each.samples))
        if each.name.endswith("_total")
        else Series(each.name, each.labels, tuple((at_s, 0.0) for at_s, _ in each.samples))
        if each.name == "glm_num_requests_running"
        else each
        for each in raw()
    ]

    assert not one(changed(idle, "glm_num_requests_running", 1.0)).is_hung


def test_no_series_at_all_is_no_group() -> None:
    signals = looked([], "g0")

    assert (signals.groups, signals.expected, signals.at_s) == ({}, {"g0"}, None)


# -- classes


def counts(*pairs: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return (*pairs, (inf, pairs[-1][1]))


def of_class(latencies: Latencies | None, slo: Slo | None = None, now_s: float = BEGAN_S) -> ClassSignals:
    return read(raw(), latencies, slo or a_slo(), ["g0"], now_s, 30.0).classes[0]


def test_a_percentile_lies_within_its_bucket() -> None:
    buckets = Buckets("chat", "ttft", SHORT_WINDOW_S, counts((1.0, 90.0), (2.0, 100.0)))

    chat = of_class(Latencies(BEGAN_S, (buckets,)))

    assert chat.latency["ttft"].state is State.VALUE
    assert chat.latency["ttft"].value == pytest.approx(1.5)
    assert chat.samples["ttft"] == 100.0


def test_histograms_of_several_sources_add_up() -> None:
    fast = Buckets("chat", "ttft", SHORT_WINDOW_S, counts((1.0, 100.0), (2.0, 100.0)))
    late = Buckets("chat", "ttft", SHORT_WINDOW_S, counts((1.0, 0.0), (2.0, 100.0)))

    assert of_class(Latencies(BEGAN_S, (fast, late))).latency["ttft"].value == pytest.approx(1.9)


@pytest.mark.parametrize(("age_s", "state"), [(0.0, State.VALUE), (60.0, State.VALUE), (61.0, State.STALE)])
def test_latencies_are_stale_after_a_minute(age_s: float, state: State) -> None:
    buckets = Buckets("chat", "ttft", SHORT_WINDOW_S, counts((1.0, 90.0), (2.0, 100.0)))

    assert of_class(Latencies(BEGAN_S, (buckets,)), now_s=BEGAN_S + age_s).latency["ttft"].state is state


def test_no_request_is_idle_and_no_histogram_is_unknown() -> None:
    buckets = Buckets("chat", "ttft", SHORT_WINDOW_S, counts((1.0, 0.0), (2.0, 0.0)))

    assert of_class(Latencies(BEGAN_S, (buckets,))).latency["ttft"].state is State.IDLE
    assert of_class(Latencies(BEGAN_S)).latency["ttft"].state is State.UNKNOWN
    assert of_class(None).latency == {}


def test_attainment_burn_and_budget_follow_from_what_ended() -> None:
    attained = (
        Attained("chat", STATUS_WINDOW_S, 200.0, 180.0),
        Attained("chat", BURN_WINDOW_S, 1000.0, 980.0),
        Attained("chat", MONTH_S, 10_000.0, 9_950.0),
    )

    chat = of_class(Latencies(BEGAN_S, (), attained))

    assert chat.attainment.value == pytest.approx(0.9)
    assert chat.fast_burn.value == pytest.approx(10.0)
    assert chat.slow_burn.value == pytest.approx(2.0)
    assert chat.budget_left.value == pytest.approx(0.5)
    assert chat.requests_ended == 200.0


def test_a_budget_of_which_a_part_was_seen_is_burnt_in_that_part() -> None:
    attained = (Attained("chat", MONTH_S, 100.0, 90.0, covered_s=MONTH_S / 100.0),)

    assert of_class(Latencies(BEGAN_S, (), attained)).budget_left.value == pytest.approx(0.9)


def test_workers_that_do_not_count_promises_are_read_from_their_histograms() -> None:
    buckets = Buckets("chat", "ttft", STATUS_WINDOW_S, counts((1.0, 90.0), (2.0, 96.0), (4.0, 100.0)))

    assert of_class(Latencies(BEGAN_S, (buckets,))).attainment.value == pytest.approx(0.96)


def test_a_class_knows_how_long_its_own_prompts_are() -> None:
    longer = [
        Series(each.name, each.labels, tuple((at_s, 3.0 * value) for at_s, value in each.samples))
        if each.name == "glm_prompt_tokens_received_total" and each.labels["slo_class"] == "chat"
        else each
        for each in raw()
    ]

    chat = read(longer, None, a_slo(), ["g0"], BEGAN_S, 30.0).classes[0]

    assert chat.prompt_tokens.value == pytest.approx(3.0 * PROMPT)


def test_a_few_requests_do_not_tell_how_long_prompts_are() -> None:
    chat = read(raw(rps=0.1), None, a_slo(), ["g0"], BEGAN_S, 30.0).classes[0]  # 3 of chat in the window

    assert chat.prompt_tokens.state is State.UNKNOWN
