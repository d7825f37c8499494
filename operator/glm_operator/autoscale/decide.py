"""decide(scaling, slo, situation, signals, memory, now_s) -> (Decision, Memory). Pure and total.

What is known raises; only what is wholly known lowers. Demand is absolute, so a decision on top of one under way asks
for what is missing and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, exp, isfinite

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale import constants as law
from glm_operator.autoscale.decision import Cause, Decision, Limit, Situation
from glm_operator.autoscale.demand import Credit, Demand, Load, Sums, demand, sums
from glm_operator.autoscale.estimate import coldstart, rates, trend
from glm_operator.autoscale.limits import Bounds, bounds_at
from glm_operator.autoscale.memory import Age, Memory, hold, most_within, say
from glm_operator.autoscale.promises import Promises, promises
from glm_operator.autoscale.series import DEMAND_WINDOW_S
from glm_operator.autoscale.signals import GroupSignals, Input, Signals, State

__all__ = ["Memory", "decide"]

_CAUSES: tuple[Cause, ...] = ("Demand", "KVCache", "Waiting", "Lookahead", "Latency")
"""The first of them that asks for what is wanted is the cause."""


def decide(
    scaling: Scaling, slo: Slo, situation: Situation, signals: Signals, memory: Memory, now_s: float
) -> tuple[Decision, Memory]:
    """Return how many groups there should be, and what to remember for the next decision.

    now_s: unix time; the next decision may come at any other. Call Memory.noted with what was written. Whatever the
    numbers are, desired lies within the bounds of the moment, or nothing changes.
    """
    now_s = now_s if isfinite(now_s) and abs(now_s) < law.HUGE else (memory.at_s or 0.0)
    current = situation.spec_groups
    elapsed_s = memory.elapsed_s(now_s)
    memory = memory.moved_to(now_s).seen(current, now_s)
    if current <= 0:
        off = Decision(
            desired=current,
            wanted=current,
            current=current,
            starting=situation.starting,
            cause="Steady",
            message="spec.replicas is 0, which switches the autoscaler off",
        )
        return off, replace(memory, desired=current)
    bounds = bounds_at(scaling, situation, now_s)
    view = _View.of(scaling, slo, situation, signals, memory, now_s, elapsed_s)
    verdict = _verdict(view)
    memory = _said(view, verdict)
    decision = _limited(view, verdict, bounds, memory)
    return decision, replace(memory, desired=decision.desired)


# -- what there is to decide on


@dataclass(frozen=True, kw_only=True)
class _View:
    """Everything about one moment. memory: as it is after this moment was looked at."""

    scaling: Scaling
    situation: Situation
    now_s: float
    current: int
    sums: Sums
    kept: Promises
    credit: Credit
    demand: Demand
    memory: Memory
    silent: tuple[str, ...]  # groups that show nothing fresh
    is_late: bool
    has_settled: bool
    inputs: Mapping[str, Input]

    @classmethod
    def of(
        cls,
        scaling: Scaling,
        slo: Slo,
        situation: Situation,
        signals: Signals,
        memory: Memory,
        now_s: float,
        elapsed_s: float,
    ) -> "_View":
        fresh = _fresh(signals, now_s)
        found = sums(signals, now_s)
        memory = _watched(memory, situation, fresh, now_s)
        warm = [each for each in fresh if _is_warm(each, scaling.warm_up_seconds, now_s)]
        memory = replace(memory, rates=rates.learn(memory.rates, warm, elapsed_s, _running_before(memory, now_s)))
        memory = _levelled(memory, found, elapsed_s, now_s)
        kept = promises(slo, signals, memory.rates, situation, memory.infeasible)
        is_late = found.oldest_s.value >= law.LATE * kept.wait_s
        credit = _credit(situation, memory, now_s)
        has_settled = not credit.remaining_s and (memory.grew_s is None or now_s - memory.grew_s >= law.SETTLE_S)
        load, ahead = _loads(memory, found, credit, now_s)
        use = scaling.target_utilization / 100.0
        plain = demand(load, ahead, found.are_known, memory.rates, kept, credit, use, 1.0)
        can_help = is_late or plain.needs.get("Demand", 0.0) >= law.CAN_HELP * credit.groups
        boost = _boost(memory, kept, elapsed_s, can_help=can_help, may_rise=_has_latency_settled(memory, credit, now_s))
        needed = demand(load, ahead, found.are_known, memory.rates, kept, credit, use, boost)
        missed = can_help and kept.worst is not None and kept.worst > 1.0
        memory = replace(memory, boost=boost, infeasible=kept.broken)
        return cls(
            scaling=scaling,
            situation=situation,
            now_s=now_s,
            current=situation.spec_groups,
            sums=found,
            kept=kept,
            credit=credit,
            demand=needed,
            memory=memory,
            silent=tuple(sorted(signals.expected - {each.group for each in fresh})),
            is_late=is_late or missed,
            has_settled=has_settled,
            inputs=_inputs(found, needed, kept, credit, memory, boost),
        )


def _fresh(signals: Signals, now_s: float) -> list[GroupSignals]:
    return [
        each
        for name, each in sorted(signals.groups.items())
        if name in signals.expected
        and name not in signals.stale
        and -law.AHEAD_S <= now_s - each.at_s <= law.STALE_MAX_S
    ]


def _is_warm(group: GroupSignals, warm_up_s: float, now_s: float) -> bool:
    return group.serving_since_s is None or now_s - group.serving_since_s >= warm_up_s


def _watched(memory: Memory, situation: Situation, fresh: list[GroupSignals], now_s: float) -> Memory:
    """Return the memory after a look at how many groups start and serve."""
    starting, serving = min(max(situation.starting, 0), 10_000), max(situation.serving, 0)
    newly = 0 if memory.serving is None else max(serving - memory.serving, 0)
    starts = coldstart.watched(
        memory.starts,
        starting=starting,
        newly_serving=newly,
        now_s=now_s,
        is_first=memory.serving is None,
        is_moving=situation.is_moving,
    )
    return replace(
        memory,
        starts=coldstart.reported(starts, fresh),
        serving=serving,
        grew_s=now_s if newly > 0 else memory.grew_s,
    )


def _running_before(memory: Memory, now_s: float) -> float | None:
    """Return how many requests ran when the window of the rates began. None: nobody looked."""
    return next((each.running for each in memory.arrivals if 25.0 <= now_s - each.at_s <= DEMAND_WINDOW_S + 5.0), None)


def _levelled(memory: Memory, found: Sums, elapsed_s: float, now_s: float) -> Memory:
    """Return the memory with what arrives now. A partial sum may raise a level and never lowers it."""
    if found.is_idle:
        idle = trend.Arrivals(now_s, 0.0, 0.0)
        levels = (0.0, 0.0, 0.0)
        return _with_levels(memory, levels, trend.noted(memory.arrivals, idle))
    counted_s = elapsed_s if found.are_known else 0.0
    requests = memory.requests_level if memory.requests_level is not None else found.arrivals.value

    def at(before: float | None, now: Input) -> float:
        if not now.is_known and (before is None or now.value < before):
            return before or now.value
        return trend.level(before, now.value, requests, counted_s)

    levels = (
        at(memory.requests_level, found.arrivals),
        at(memory.prompt_level, found.prompt_arriving),
        at(memory.generated_level, found.generated),
    )
    history = memory.arrivals
    if found.are_known:
        moment = trend.Arrivals(now_s, found.arrivals.value, found.prompt_arriving.value, found.running.value)
        history = trend.noted(history, moment)
    return _with_levels(memory, levels, history)


def _with_levels(memory: Memory, levels: tuple[float, float, float], history: tuple[trend.Arrivals, ...]) -> Memory:
    return replace(
        memory, requests_level=levels[0], prompt_level=levels[1], generated_level=levels[2], arrivals=history
    )


def _credit(situation: Situation, memory: Memory, now_s: float) -> Credit:
    serving = min(max(situation.serving, 0), situation.spec_groups)
    on_their_way = min(situation.spec_groups - serving, 10_000)
    return Credit(
        serving=serving,
        remaining_s=tuple(memory.starts.remaining(on_their_way, now_s)),
        cold_start_s=min(memory.starts.p95_s, law.LOOKAHEAD_MAX_S),
    )


def _loads(memory: Memory, found: Sums, credit: Credit, now_s: float) -> tuple[Load, Load]:
    """Return the load now, and as it will be when a group that is ordered now serves."""
    requests, prompt = memory.requests_level or 0.0, memory.prompt_level or 0.0
    answer = memory.rates.answer_tokens or 0.0
    now = Load(
        prompt_tokens=prompt,
        generated=max(memory.generated_level or 0.0, requests * answer),
        waiting_prompt_tokens=found.prompt_tokens.value,
        waiting_requests=found.waiting.value,
        kv_tokens=found.kv_used.value,
    )
    growth = 1.0 + law.LOOKAHEAD_MAX_GROWTH
    of_prompts = trend.rise([(each.at_s, each.prompt_tokens) for each in memory.arrivals], requests, now_s)
    of_requests = trend.rise([(each.at_s, each.requests) for each in memory.arrivals], requests, now_s)
    ahead = replace(
        now,
        prompt_tokens=max(prompt, of_prompts.after(credit.cold_start_s, prompt * growth)),
        generated=max(now.generated, answer * of_requests.after(credit.cold_start_s, requests * growth)),
    )
    return now, ahead


def _has_latency_settled(memory: Memory, credit: Credit, now_s: float) -> bool:
    """Whether latencies can show what the last new group did: it serves for a while, and none is on its way."""
    return not credit.remaining_s and (memory.grew_s is None or now_s - memory.grew_s >= 2.0 * law.SETTLE_S)


def _boost(memory: Memory, kept: Promises, elapsed_s: float, *, can_help: bool, may_rise: bool) -> float:
    """Return the factor by which latencies raise the safety factor: up while a promise is missed, else back to 1."""
    if kept.worst is None:
        return memory.boost
    if kept.worst > 1.0 and can_help:
        if not may_rise:
            return memory.boost
        more = law.BOOST_GAIN * min(kept.worst - 1.0, 1.0) * elapsed_s / 60.0
        return min(memory.boost + more, law.BOOST_MAX)
    return 1.0 + (memory.boost - 1.0) * exp(-elapsed_s / law.BOOST_DECAY_S)


def _inputs(
    found: Sums, needed: Demand, kept: Promises, credit: Credit, memory: Memory, boost: float
) -> dict[str, Input]:
    """Return every input of the decision, by its name with its unit."""
    at_s = found.arrivals.at_s

    def made(value: float | None) -> Input:
        """Return a number made from several inputs, which is as old as they are."""
        if value is None:
            return Input(State.UNKNOWN)
        if found.is_idle:
            return Input(State.IDLE if value == 0.0 else State.VALUE, value, at_s)
        return Input(found.arrivals.state, value, at_s)

    room = (memory.rates.kv_tokens or 0.0) * credit.serving
    measured = {
        "prefill rate, tokens/s a group": memory.rates.prefill_tokens_per_s,
        "answer length, tokens": memory.rates.answer_tokens,
        "latency against its promise, ratio": kept.worst,
    }
    return {
        "requests running": found.running,
        "requests waiting": found.waiting,
        "oldest waiting, s": found.oldest_s,
        "arrivals, requests/s": found.arrivals,
        "prompt tokens arriving, tokens/s": found.prompt_arriving,
        "tokens generated, tokens/s": found.generated,
        "KV use, %": replace(found.kv_used, value=100.0 * found.kv_used.value / room) if room else Input(State.UNKNOWN),
        "prefill demand, groups": made(needed.prefill),
        "decode demand, groups": made(needed.decode),
        "backlog, s of work": made(needed.backlog_s),
        "needed, groups": made(needed.most),
        "cold start p95, s": Input(State.VALUE, credit.cold_start_s, memory.at_s),
        "safety factor by latency, ratio": Input(State.VALUE, boost, memory.at_s),
        **{
            name: Input(State.UNKNOWN) if value is None else Input(State.VALUE, value, memory.at_s)
            for name, value in measured.items()
        },
    }


# -- what is wanted


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """How many groups are wanted before limits. may_fall: everything is known, so fewer may be enough."""

    wanted: int
    cause: Cause
    may_fall: bool
    without_credit: bool = False  # more would be wanted if none were on their way
    survivors_fail: bool = False  # fewer would do, but not with the margin


def _up(need: float) -> int:
    """Return the groups for a need; what is above by noise asks for none."""
    return ceil(need / (1.0 + law.UP_TOLERANCE))


def _verdict(view: _View) -> _Verdict:
    """Return what the load asks for.

    Between the groups that a need asks for and those that would carry it with a margin, what there is stays.
    """
    needs = view.demand.needs
    current, most = view.current, view.demand.most
    floor = _floor(view)
    more, enough = _up(most), ceil(most * (1.0 + law.DOWN_MARGIN))
    wanted = more if more > current else min(current, enough)
    wanted = max(wanted, floor, 1)
    may_fall = view.demand.is_known
    if not may_fall:
        wanted = max(wanted, current)
    if wanted > current:
        asking = [cause for cause in _CAUSES if cause in needs and _up(needs[cause]) >= wanted]
        cause: Cause = asking[0] if asking else "Waiting"
    elif not may_fall:
        cause = "NoData"
    else:
        cause = "Surplus" if wanted < current else "Steady"
    return _Verdict(
        wanted=wanted,
        cause=cause,
        may_fall=may_fall,
        without_credit=wanted == current and view.is_late and bool(view.credit.remaining_s),
        survivors_fail=wanted == current and floor < current and max(ceil(most), 1) < current,
    )


def _floor(view: _View) -> int:
    """Return the groups that the oldest request asks for, whatever was measured.

    While it is late none goes. One more comes if none is on its way, the last one had time to help, and the age does
    not fall by itself; before anything was measured there is nothing to wait for.
    """
    if not view.is_late:
        return 0
    waited_s = view.sums.oldest_s.value
    if waited_s < law.LATE * view.kept.wait_s or not view.has_settled:
        return view.current
    if view.memory.rates.prefill_tokens_per_s is None:
        return view.current + 1
    before = [each for each in view.memory.ages if view.now_s - each.at_s >= law.AGE_SPAN_S]
    lasts = bool(before) and law.LATE * view.kept.wait_s <= before[-1].waited_s <= waited_s
    return view.current + 1 if lasts else view.current


# -- what was wanted before


def _windows(view: _View) -> tuple[float, float]:
    """Return the stabilisation up and down, in seconds: none up and a longer one down while a budget burns fast."""
    up, down = float(view.scaling.up.stabilization_seconds), float(view.scaling.down.stabilization_seconds)
    return (0.0, down * law.BURN_DOWN_FACTOR) if view.kept.burns_fast else (up, down)


def _said(view: _View, verdict: _Verdict) -> Memory:
    """Return the memory with what is wanted now. Of what is not known nothing is said, and the last word holds."""
    memory, now_s = view.memory, view.now_s
    ages = tuple(each for each in memory.ages if 0.0 < now_s - each.at_s <= 3.0 * law.AGE_SPAN_S)
    if view.sums.oldest_s.is_known or view.sums.oldest_s.value > 0.0:
        ages = (*ages, Age(now_s, view.sums.oldest_s.value))
    keep_s = law.BURN_DOWN_FACTOR * view.scaling.down.stabilization_seconds + view.scaling.up.stabilization_seconds
    longest_s = max(view.scaling.up.period_seconds, view.scaling.down.period_seconds)
    memory = replace(memory, ages=ages, moves=tuple(each for each in memory.moves if now_s - each.at_s < longest_s))
    if not verdict.may_fall and verdict.wanted <= view.current:
        return replace(memory, most=hold(memory.most, now_s), least=hold(memory.least, now_s))
    return replace(
        memory,
        most=say(memory.most, now_s, verdict.wanted, keep_s),
        least=say(memory.least, now_s, -verdict.wanted, keep_s),
    )


# -- what may be


def _limited(view: _View, verdict: _Verdict, bounds: Bounds, memory: Memory) -> Decision:
    current = view.current
    if verdict.wanted > current:
        desired, limit = _raised(view, verdict.wanted, bounds, memory)
    elif verdict.wanted < current:
        desired, limit = _lowered(view, verdict.wanted, bounds, memory)
    else:
        desired, limit = current, _why_not(view, verdict)
    cause = verdict.cause
    inside = max(desired, bounds.least)
    inside = min(inside, bounds.most) if not view.situation.is_moving or inside <= bounds.most else inside
    if view.situation.is_moving and inside < current:
        inside, limit = current, "Rollout"
    if inside != desired:
        limit = limit if inside == current else None
        cause = _cause_of_bounds(view.scaling, bounds, current)
        desired = inside
    return Decision(
        desired=desired,
        wanted=verdict.wanted,
        current=current,
        starting=len(view.credit.remaining_s),
        cause=cause,
        message=_message(view, cause, limit, bounds),
        limited_by=limit,
        infeasible=dict(view.kept.infeasible),
        inputs=view.inputs,
    )


def _cause_of_bounds(scaling: Scaling, bounds: Bounds, current: int) -> Cause:
    """Return whether a schedule or somebody's number is why spec.replicas is brought back."""
    is_plain = scaling.min_groups <= current and (scaling.max_groups is None or current <= scaling.max_groups)
    return "Schedule" if bounds.scheduled and is_plain else "Bounds"


def _raised(view: _View, wanted: int, bounds: Bounds, memory: Memory) -> tuple[int, Limit | None]:
    """Return how many of the wanted groups may be now, and what keeps it from more."""
    current, now_s = view.current, view.now_s
    allowed, limit = bounds.up(wanted, current)
    window_s, _ = _windows(view)
    held = most_within(memory.least, now_s, window_s)
    steady = wanted if held is None else min(wanted, -held)
    if now_s - (memory.began_s or 0.0) < window_s:
        steady = current
    room = view.scaling.up.groups - memory.moved(1, view.scaling.up.period_seconds, now_s)
    others: tuple[tuple[int, Limit], ...] = (
        (max(steady, current), "UpStabilization"),
        (current + max(room, 0), "UpRate"),
    )
    for groups, name in others:
        if groups < allowed:
            allowed, limit = groups, name
    return allowed, limit


def _lowered(view: _View, wanted: int, bounds: Bounds, memory: Memory) -> tuple[int, Limit | None]:
    """Return how far it may go down now, and what keeps it from less."""
    current, now_s = view.current, view.now_s
    if view.situation.is_moving:
        return current, "Rollout"
    allowed = max(wanted, min(bounds.least, current))
    limit: Limit | None = "Min" if allowed > wanted else None
    _, window_s = _windows(view)
    held = most_within(memory.most, now_s, window_s)
    steady = wanted if held is None else held
    if now_s - (memory.began_s or 0.0) < window_s:
        steady = current
    room = view.scaling.down.groups - memory.moved(-1, view.scaling.down.period_seconds, now_s)
    others: tuple[tuple[int, Limit], ...] = (
        (min(steady, current), "DownStabilization"),
        (current - max(room, 0), "DownRate"),
    )
    for groups, name in others:
        if groups > allowed:
            allowed, limit = groups, name
    return allowed, limit


def _why_not(view: _View, verdict: _Verdict) -> Limit | None:
    """Return what keeps the number where it is, if anything does."""
    if not verdict.may_fall:
        nobody_serves = view.situation.serving <= 0 and view.credit.remaining_s
        return "Starting" if nobody_serves or verdict.without_credit else "MissingMetrics"
    if verdict.without_credit:
        return "Starting"
    if verdict.survivors_fail:
        return "Survivors"
    return "Infeasible" if view.kept.infeasible else None


# -- in words


def _message(view: _View, cause: Cause, limit: Limit | None, bounds: Bounds) -> str:
    needed, kept = view.demand, view.kept
    waited = f"the oldest request waits {view.sums.oldest_s.value:.3g} s"
    needs = needed.needs
    words: dict[Cause, str] = {
        "Steady": f"{_groups(needed.most)} needed, {view.current} there",
        "Demand": f"{_groups(needs.get('Demand', 0.0))} needed for what arrives: {_work(needed)}",
        "Waiting": f"{waited} of {kept.wait_s:.3g} s, and {needed.backlog_s or 0.0:.3g} s of work of one group wait",
        "KVCache": f"{_groups(needs.get('KVCache', 0.0))} needed for what KV caches hold, at {law.KV_TARGET:.0%} full",
        "Latency": f"{kept.worst_of or 'a promise was missed'}; {_groups(needs.get('Latency', 0.0))} needed",
        "Lookahead": f"arrivals rise: {_groups(needs.get('Lookahead', 0.0))} needed when a new one serves, "
        f"in {view.credit.cold_start_s:.0f} s",
        "Schedule": f"schedule {', '.join(bounds.scheduled)} sets {bounds.least} to {bounds.most} groups",
        "Bounds": f"{view.current} is outside of {bounds.least} to {bounds.most}",
        "Surplus": f"{_groups(needed.most)} needed, and fewer than {view.current} carry it with a margin",
        "NoData": _unknown(view),
    }
    return words[cause] + (f"; limited by {limit}" if limit else "")


def _groups(need: float) -> str:
    return f"{need:.2f} groups"


def _work(needed: Demand) -> str:
    parts = (("prefill", needed.prefill), ("decode", needed.decode))
    return ", ".join(f"{name} {value:.2f}" for name, value in parts if value is not None) or "not measured yet"


def _unknown(view: _View) -> str:
    if not view.silent and view.situation.serving <= 0:
        return "no group serves yet, so nothing is measured"
    if view.silent:
        few = ", ".join(view.silent[:3]) + (f" and {len(view.silent) - 3} more" if len(view.silent) > 3 else "")
        return f"no fresh numbers of {few}"
    if not view.sums.are_known:
        return "not every number of the groups is known"
    return "what a group can do was not measured yet"
