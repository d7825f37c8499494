"""Laws of the law, over whatever may be measured: total, bounded, idempotent, monotone, and blind to nothing."""

from dataclasses import replace
from itertools import pairwise
from math import inf, isfinite, nan

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.constants import UP_TOLERANCE
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Decision, Situation
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import DEMAND_METRICS, Attained, Buckets, Latencies, Series
from glm_operator.autoscale.signals import RATES, GroupSignals, Signals
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    GROUPS_PER_RPS,
    HELD,
    KV,
    PERIOD_S,
    PROMPT,
    Story,
    a_fleet,
    a_scaling,
    a_situation,
    a_slo,
    knowing,
    silence,
    slow,
)

SLO = a_slo(ttft="2s", itl="100ms")

ANY_NUMBER = st.one_of(
    st.floats(),  # with NaN, both infinities and the largest
    st.floats(min_value=0.0, max_value=1e6),
    st.sampled_from([0.0, -1.0, 1.0, nan, inf, -inf, 1e308, 5e-324]),
)
ANY_TIME = st.one_of(
    st.floats(min_value=BEGAN_S - 100.0, max_value=BEGAN_S + 100.0), st.sampled_from([0.0, -1e12, 1e18, nan, inf, -inf])
)
ANY_COUNT = st.integers(min_value=-5, max_value=10**9)

DAY = {"name": "day", "cron": "0 8 * * *", "duration": "8h", "min": 3}
SCALINGS = st.builds(
    lambda least, more, use, up, down, wait_s, gpus, scheduled: Scaling.model_validate(
        {
            "min": least,
            "max": least + more,
            "targetUtilization": use,
            "up": {"groups": up, "stabilizationSeconds": wait_s // 2},
            "down": {"groups": down, "stabilizationSeconds": wait_s},
            "gpuBudget": gpus,
            "schedules": [{**DAY, "max": max(3, least + more)}] if scheduled else [],
        }
    ),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(10, 95),
    st.integers(1, 10),
    st.integers(1, 10),
    st.sampled_from([0, 30, 300]),
    st.one_of(st.none(), st.integers(1, 64)),
    st.booleans(),
)

SITUATIONS = st.builds(
    Situation,
    spec_groups=st.integers(-1, 60),
    serving=ANY_COUNT,
    starting=ANY_COUNT,
    gpus_per_group=st.integers(0, 8),
    namespace_gpus_left=st.one_of(st.none(), st.integers(-8, 64)),
    quota_groups=st.one_of(st.none(), st.integers(-1, 20)),
    is_moving=st.booleans(),
    floor_s=st.dictionaries(st.sampled_from(["ttft", "itl", "e2e", "none"]), ANY_NUMBER, max_size=2),
)


def any_samples() -> st.SearchStrategy[tuple[tuple[float, float], ...]]:
    return st.lists(st.tuples(ANY_TIME, ANY_NUMBER), max_size=5).map(tuple)


def any_series() -> st.SearchStrategy[list[Series]]:
    one = st.builds(
        lambda name, group, more, samples: Series(name, {"group": group, **more}, samples),
        st.sampled_from(DEMAND_METRICS),
        st.sampled_from(["g0", "g1", "gone"]),
        st.sampled_from([{}, {"slo_class": "chat"}, {"pod": "a", "instance": "x:1"}, {"rank": "1", "phase": "total"}]),
        any_samples(),
    )
    return st.lists(one, max_size=25)


def any_latencies() -> st.SearchStrategy[Latencies | None]:
    windows = st.sampled_from([60.0, 300.0, 3600.0, 2_592_000.0])
    counts = st.lists(st.tuples(ANY_NUMBER, ANY_NUMBER), max_size=4).map(tuple)
    signals = st.sampled_from(["ttft", "itl"])
    buckets = st.builds(Buckets, st.just("chat"), signals, windows, counts)
    attained = st.builds(Attained, st.just("chat"), windows, ANY_NUMBER, ANY_NUMBER, st.one_of(st.none(), ANY_NUMBER))
    found = st.builds(
        lambda at_s, some, others: Latencies(at_s, tuple(some), tuple(others)),
        ANY_TIME,
        st.lists(buckets, max_size=4),
        st.lists(attained, max_size=3),
    )
    return st.one_of(st.none(), found)


def within_limits(decision: Decision, scaling: Scaling, situation: Situation) -> bool:
    """Whether a decision is within the bounds of the spec, or changes nothing."""
    if decision.desired == situation.spec_groups:
        return True
    assert scaling.max_groups is not None
    most = scaling.max_groups
    if scaling.gpu_budget is not None and situation.gpus_per_group > 0:
        most = max(min(most, scaling.gpu_budget // situation.gpus_per_group), 1)
    grows = decision.desired > situation.spec_groups
    if grows and situation.quota_groups is not None and decision.desired > scaling.min_groups:
        most = min(most, max(situation.quota_groups, situation.spec_groups, scaling.min_groups, 3))
    return 1 <= decision.desired <= most


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(any_series(), any_latencies(), SITUATIONS, ANY_TIME, ANY_NUMBER), min_size=1, max_size=4),
    SCALINGS,
)
def test_it_decides_on_whatever_is_measured_and_stays_within_its_limits(looks: list, scaling: Scaling) -> None:
    memory = Memory()
    for series, latencies, situation, now_s, warm_up_s in looks:
        signals = read(series, latencies, SLO, ["g0", "g1"], now_s, warm_up_s)

        decision, memory = decide(scaling, SLO, situation, signals, memory, now_s)

        assert within_limits(decision, scaling, situation), decision
        assert decision.message


ANY_GROUP = st.builds(
    GroupSignals,
    group=st.just("g0"),
    revision=st.sampled_from(["r1", "r2"]),
    at_s=st.one_of(st.just(BEGAN_S), ANY_TIME),
    serving_since_s=st.one_of(st.none(), ANY_TIME),
    is_hung=st.booleans(),
    missing=st.sets(st.sampled_from(["requests_running", "kv_usage", "oldest_waiting_s"])).map(frozenset),
    **dict.fromkeys(
        [
            "requests_running",
            "requests_waiting",
            "oldest_waiting_s",
            "prompt_tokens_waiting",
            "prompt_tokens_left",
            "kv_usage",
            "kv_tokens",
            "max_running",
        ],
        ANY_NUMBER,
    ),
    **{name: st.one_of(st.none(), ANY_NUMBER) for name in [*RATES, "cold_start_s"]},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_GROUP, min_size=1, max_size=6), st.lists(ANY_NUMBER, min_size=6, max_size=6))
def test_no_signal_can_make_it_raise_or_overflow(groups: list[GroupSignals], seconds: list[float]) -> None:
    memory = Memory()
    for group, slowness in zip(groups, seconds, strict=False):
        signals = Signals(groups={"g0": group}, expected=frozenset({"g0"}), classes=(slow(slowness),))

        decision, memory = decide(a_scaling(), SLO, a_situation(3), signals, memory, BEGAN_S)

        assert 1 <= decision.desired <= 20
        assert 1 <= decision.wanted <= 1_000_000
        assert isfinite(memory.boost)


LOADS = st.builds(
    lambda rps, waiting, age_s, kv: {"rps": rps, "waiting": waiting, "age_s": age_s, "kv": kv},
    st.floats(0.0, 40.0),
    st.floats(0.0, 500.0),
    st.floats(0.0, 60.0),
    st.floats(0.0, 1.0),
)


def a_load(groups: int, load: dict[str, float], at_s: float = BEGAN_S, slowness: float | None = None) -> Signals:
    """Return groups under a load whose every part can be larger alone. What they do is the same for every load."""
    measured = a_fleet(groups, 0.5 * groups, at_s)
    fleet = {
        name: replace(
            each,
            arrivals=load["rps"] / groups,
            prompt_tokens_arriving=load["rps"] / groups * PROMPT,
            requests_waiting=load["waiting"] / groups,
            prompt_tokens_waiting=load["waiting"] / groups * PROMPT,
            oldest_waiting_s=load["age_s"],
            kv_usage=load["kv"],
            requests_running=KV / 10.0 / HELD,
        )
        for name, each in measured.groups.items()
    }
    classes = () if slowness is None else (slow(slowness, at_s=at_s),)
    return replace(measured, groups=fleet, classes=classes)


HISTORY = st.lists(st.tuples(LOADS, st.booleans()), max_size=8)


def remembered(history: list[tuple[dict[str, float], bool]], scaling: Scaling, groups: int) -> tuple[Memory, float]:
    """Return a memory after some decisions that were not carried out, and the time."""
    memory, now_s = knowing(), BEGAN_S
    for load, is_known in history:
        now_s += PERIOD_S
        signals = a_load(groups, load, now_s) if is_known else silence(groups)
        _, memory = decide(scaling, SLO, a_situation(groups), signals, memory, now_s)
    return memory, now_s + PERIOD_S


@settings(max_examples=300, deadline=None)
@given(HISTORY, LOADS, LOADS, SCALINGS, st.integers(1, 12), st.integers(0, 3), st.floats(0.1, 8.0), st.floats(1.0, 3.0))
def test_more_load_never_asks_for_fewer_groups(
    history: list, load: dict, more: dict, scaling: Scaling, groups: int, starting: int, slowness: float, slower: float
) -> None:
    memory, now_s = remembered(history, scaling, groups)
    larger = {name: load[name] + (more[name] if name != "kv" else 0.0) for name in load}
    larger["kv"] = max(load["kv"], more["kv"])
    situation = a_situation(groups + starting, groups)

    few, _ = decide(scaling, SLO, situation, a_load(groups, load, now_s, slowness), memory, now_s)
    many, _ = decide(scaling, SLO, situation, a_load(groups, larger, now_s, slowness * slower), memory, now_s)

    assert many.wanted >= few.wanted
    assert many.desired >= few.desired


@settings(max_examples=300, deadline=None)
@given(HISTORY, LOADS, SCALINGS, st.integers(1, 12), st.floats(0.1, 8.0), st.booleans())
def test_deciding_twice_on_the_same_moves_once(
    history: list, load: dict, scaling: Scaling, groups: int, slowness: float, is_noted: bool
) -> None:
    memory, now_s = remembered(history, scaling, groups)
    signals = a_load(groups, load, now_s, slowness)
    first, after = decide(scaling, SLO, a_situation(groups), signals, memory, now_s)

    again, _ = decide(scaling, SLO, a_situation(groups), signals, after, now_s)
    assert again.desired == first.desired

    if is_noted:
        after = after.noted(first.desired)
    carried_out = a_situation(first.desired, min(groups, first.desired))
    second, _ = decide(scaling, SLO, carried_out, signals, after, now_s)
    assert second.desired == first.desired


MOMENTS = st.sampled_from(["known", "unknown", "stale", "one missing", "later", "earlier"])


def seen_at(moment: str, story: Story, load: dict[str, float]) -> Signals:
    whole = a_load(story.serving, load, story.now_s)
    if moment == "unknown":
        return silence(story.serving)
    if moment == "stale":
        return replace(whole, stale=frozenset(whole.groups))
    if moment == "one missing":
        return replace(whole, groups={name: each for name, each in whole.groups.items() if name != "g0"})
    return whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(MOMENTS, LOADS, st.integers(1, 12)), min_size=1, max_size=20), SCALINGS)
def test_nothing_ever_goes_down_on_data_that_are_missing(schedule: list, scaling: Scaling) -> None:
    story = Story(groups=min(max(4, scaling.min_groups), scaling.max_groups or 4), scaling=scaling, slo=SLO)
    jumps = {"later": 86_400.0, "earlier": -86_400.0}
    for moment, load, times in schedule:
        story.now_s += jumps.get(moment, 0.0)
        before = len(story.numbers) - 1

        def seen(story: Story, moment: str = moment, load: dict = load) -> Signals:
            return seen_at(moment, story, load)

        story.run(times * PERIOD_S, seen)

        if moment in ("unknown", "stale", "one missing"):
            told = story.numbers[before:]
            assert all(after >= earlier for earlier, after in pairwise(told)), (moment, told)


@settings(max_examples=100, deadline=None)
@given(st.floats(1.5, 12.0), st.integers(1, 6), st.floats(20.0, 400.0), st.booleans())
def test_groups_that_start_are_never_asked_for_again(
    rps_a_group: float, groups: int, start_s: float, ttft: bool
) -> None:
    """Whatever the queue does while groups start, as long as what arrives stays the same."""
    rps = rps_a_group * groups
    excess = max(rps - groups / GROUPS_PER_RPS, 0.0)
    story = Story(
        groups=groups,
        scaling=a_scaling(max=200, up={"groups": 200}),
        slo=SLO if ttft else a_slo(itl="1s"),
        start_s=start_s,
        memory=knowing(),
    )

    def seen(story: Story) -> Signals:
        waited_s = story.now_s - BEGAN_S
        load = {"rps": rps, "waiting": excess * waited_s, "age_s": waited_s * excess / rps, "kv": 0.1}
        return a_load(story.serving, load, story.now_s)

    story.run(PERIOD_S, seen)
    asked = story.groups
    story.run(start_s - 2 * PERIOD_S, seen)

    most = asked * (1.0 + UP_TOLERANCE) + 1  # 1: what is between two whole numbers
    assert story.groups <= most, story.moves


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(2, 8))
def test_clocks_that_jump_move_no_group(jumps: list[float], groups: int) -> None:
    story = Story(groups=groups)
    rps = 0.7 * groups / GROUPS_PER_RPS
    for jump in jumps:
        story.now_s += jump
        story.run(PERIOD_S, lambda story: a_fleet(story.serving, rps, story.now_s))

    assert story.moves == []


def test_every_input_has_a_unit_in_its_name() -> None:
    decision, _ = decide(a_scaling(), SLO, a_situation(2), a_fleet(2, 2.0), knowing(), BEGAN_S)

    units = (", s", ", groups", ", %", "/s", "/s a group", ", ratio", ", tokens", " running", " waiting", " of work")
    assert [name for name in decision.inputs if not name.endswith(units)] == []
    assert {"prefill demand, groups", "oldest waiting, s", "KV use, %", "cold start p95, s"} <= decision.inputs.keys()
