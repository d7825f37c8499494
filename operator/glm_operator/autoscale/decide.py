"""decide(scaling, slo, situation, signals, memory, now_s) -> (Decision, Memory). Pure and total.

What is known raises; only what is wholly known lowers. Demand is absolute, so a decision on top of one under way asks
for what is missing and no more.
"""

from dataclasses import dataclass, replace
from math import ceil, isfinite

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale import constants as law
from glm_operator.autoscale.bounds.limits import Bounds, bounds_at
from glm_operator.autoscale.decision import CEILINGS, Cause, Decision, Limit, Situation
from glm_operator.autoscale.memory import Age, Memory, hold, most_within, say
from glm_operator.autoscale.moment import Moment
from glm_operator.autoscale.signals import Signals
from glm_operator.autoscale.wording import message
from glm_operator.autoscale.zero import law as zero

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
    memory = replace(memory, idle=memory.idle.looked(signals.asked, current, situation.serving, now_s))
    if current <= 0 and scaling.may_be_zero:
        first = zero.from_none(scaling, slo, situation, signals, memory, bounds_at(scaling, situation, now_s), now_s)
        return first, _without_groups(memory, first)
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
    moment = Moment.of(scaling, slo, situation, signals, memory, now_s, elapsed_s)
    verdict = _verdict(moment)
    memory = _said(moment, verdict)
    decision = _limited(moment, verdict, bounds, memory)
    if scaling.may_be_zero:
        decision = zero.to_none(moment, decision, bounds)
    ceiling = decision.limited_by if decision.limited_by in CEILINGS else None
    return decision, replace(memory, desired=decision.desired, ceiling=ceiling)


def _without_groups(memory: Memory, first: Decision) -> Memory:
    """Return the memory after a look at a deployment without groups. Groups that finish there are of no decision."""
    starts = replace(memory.starts, pending=())
    return replace(memory, desired=first.desired, ceiling=None, serving=0, grew_s=None, ages=(), starts=starts)


# -- what is wanted


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """How many groups are wanted before limits. may_fall: everything is known, so fewer may be enough.

    What a silent gateway holds is not known, so nothing goes for what the others say; that more may come, or that as
    many as there are are needed, stays true.
    """

    wanted: int
    cause: Cause
    may_fall: bool
    without_credit: bool = False  # more would be wanted if none were on their way
    survivors_fail: bool = False  # fewer would do, but not with the margin


def _up(need: float) -> int:
    """Return the groups for a need; what is above by noise asks for none."""
    return ceil(need / (1.0 + law.UP_TOLERANCE))


def _verdict(moment: Moment) -> _Verdict:
    """Return what the load asks for.

    Between the groups that a need asks for and those that would carry it with a margin, what there is stays.
    """
    needs = moment.demand.needs
    current, most = moment.current, moment.demand.most
    floor = _floor(moment)
    more, enough = _up(most), ceil(moment.demand.careful * (1.0 + law.DOWN_MARGIN))
    wanted = more if more > current else min(current, enough)
    wanted = max(wanted, floor, 1)
    may_fall = moment.demand.is_known and not (wanted < current and moment.asked.silent)
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
        without_credit=wanted == current and moment.is_late and bool(moment.credit.remaining_s),
        survivors_fail=wanted == current > 1 and floor < current and most <= (current - 1) * (1.0 + law.DOWN_MARGIN),
    )


def _floor(moment: Moment) -> int:
    """Return the groups that the oldest request asks for, whatever was measured.

    While it is late none goes. One more comes if none is on its way, the last one had time to help, the age does not
    fall by itself, and requests wait in every group: where one has none, what arrives has room, and what waits in
    another stays there, however many come. Before anything was measured there is nothing to wait for.
    """
    if not moment.is_late:
        return 0
    waited_s = moment.sums.oldest_s.value
    if waited_s < law.LATE * moment.kept.wait_s or not moment.has_settled:
        return moment.current
    if moment.waits_in_vain or not moment.all_queue:
        return moment.current
    if moment.memory.rates.prefill_tokens_per_s is None:
        return moment.current + 1
    span_s = law.AGE_SPAN_S
    before = [each for each in moment.memory.ages if span_s <= moment.now_s - each.at_s <= law.AGE_SPANS * span_s]
    lasts = bool(before) and law.LATE * moment.kept.wait_s <= before[-1].waited_s <= waited_s
    return moment.current + 1 if lasts else moment.current


# -- what was wanted before


def _windows(moment: Moment) -> tuple[float, float]:
    """Return the stabilisation up and down, in seconds: none up and a longer one down while a budget burns fast."""
    up, down = float(moment.scaling.up.stabilization_seconds), _kept_s(moment)
    return (0.0, down * law.BURN_DOWN_FACTOR) if moment.kept.burns_fast else (up, down)


def _kept_s(moment: Moment) -> float:
    """Return for how many seconds fewer groups must have been enough; by default, what starts as measured are worth."""
    given = moment.scaling.down.stabilization_seconds
    if given is not None:
        return float(given)
    memory, now_s = moment.memory, moment.now_s
    is_regretted = memory.regretted_s is not None and now_s - memory.regretted_s < law.REGRETTED_S
    is_new = now_s - (memory.began_s or 0.0) < law.NEW_LOAD_S
    if is_new or is_regretted or not moment.memory.starts.are_known:
        return law.KEEP_MAX_S
    return min(max(law.KEEP_STARTS * moment.memory.starts.p95_s, law.KEEP_MIN_S), law.KEEP_MAX_S)


def _said(moment: Moment, verdict: _Verdict) -> Memory:
    """Return the memory with what is wanted now. Of what is not known nothing is said, and the last word holds."""
    memory, now_s = moment.memory, moment.now_s
    ages = tuple(each for each in memory.ages if 0.0 < now_s - each.at_s <= law.AGE_SPANS * law.AGE_SPAN_S)
    if moment.sums.oldest_s.is_known or moment.sums.oldest_s.value > 0.0:
        ages = (*ages, Age(now_s, moment.sums.oldest_s.value))
    down_s = moment.scaling.down.stabilization_seconds
    longest_down_s = law.KEEP_MAX_S if down_s is None else float(down_s)
    keep_s = law.BURN_DOWN_FACTOR * longest_down_s + moment.scaling.up.stabilization_seconds
    longest_s = max(moment.scaling.up.period_seconds, moment.scaling.down.period_seconds)
    memory = replace(memory, ages=ages, moves=tuple(each for each in memory.moves if now_s - each.at_s < longest_s))
    if not verdict.may_fall and verdict.wanted <= moment.current:
        return replace(memory, most=hold(memory.most, now_s), least=hold(memory.least, now_s))
    return replace(
        memory,
        most=say(memory.most, now_s, verdict.wanted, keep_s),
        least=say(memory.least, now_s, -verdict.wanted, keep_s),
    )


# -- what may be


def _limited(moment: Moment, verdict: _Verdict, bounds: Bounds, memory: Memory) -> Decision:
    current = moment.current
    if verdict.wanted > current:
        desired, limit = _raised(moment, verdict.wanted, bounds, memory)
    elif verdict.wanted < current:
        desired, limit = _lowered(moment, verdict.wanted, bounds, memory)
    else:
        desired, limit = current, _ceiling(moment, bounds, memory) or _why_not(moment, verdict)
    cause = verdict.cause
    least, least_limit = bounds.up(bounds.least, current)
    inside = min(max(desired, least), bounds.most)
    if inside != desired or inside < bounds.least:
        limit = least_limit if inside == least else None
        cause = _cause_of_bounds(moment.scaling, bounds, current)
        desired = inside
    if desired < current and moment.situation.is_moving:
        desired, limit = current, "Rollout"
    return Decision(
        desired=desired,
        wanted=verdict.wanted,
        current=current,
        starting=len(moment.credit.remaining_s),
        cause=cause,
        message=message(moment, cause, limit, bounds),
        limited_by=limit,
        least=bounds.least,
        most=bounds.most,
        scheduled=bounds.scheduled,
        is_blind=moment.is_blind,
        infeasible=dict(moment.kept.infeasible),
        inputs=moment.inputs,
    )


def _cause_of_bounds(scaling: Scaling, bounds: Bounds, current: int) -> Cause:
    """Return whether a schedule or somebody's number is why spec.replicas is brought back."""
    is_plain = scaling.min_groups <= current and (scaling.max_groups is None or current <= scaling.max_groups)
    return "Schedule" if bounds.scheduled and is_plain else "Bounds"


def _raised(moment: Moment, wanted: int, bounds: Bounds, memory: Memory) -> tuple[int, Limit | None]:
    """Return how many of the wanted groups may be now, and what keeps it from more."""
    current, now_s = moment.current, moment.now_s
    allowed, limit = bounds.up(wanted, current)
    window_s, _ = _windows(moment)
    held = most_within(memory.least, now_s, window_s)
    steady = wanted if held is None else min(wanted, -held)
    if now_s - (memory.began_s or 0.0) < window_s:
        steady = current
    room = moment.scaling.up.groups - memory.moved(1, moment.scaling.up.period_seconds, now_s)
    others: tuple[tuple[int, Limit], ...] = (
        (max(steady, current), "UpStabilization"),
        (current + max(room, 0), "UpRate"),
    )
    for groups, name in others:
        if groups < allowed:
            allowed, limit = groups, name
    return allowed, limit


def _lowered(moment: Moment, wanted: int, bounds: Bounds, memory: Memory) -> tuple[int, Limit | None]:
    """Return how far it may go down now, and what keeps it from less."""
    current, now_s = moment.current, moment.now_s
    allowed = max(wanted, min(bounds.least, current))
    limit: Limit | None = "Min" if allowed > wanted else None
    _, window_s = _windows(moment)
    held = most_within(memory.most, now_s, window_s)
    steady = wanted if held is None else held
    if now_s - (memory.began_s or 0.0) < window_s:
        steady = current
    room = moment.scaling.down.groups - memory.moved(-1, moment.scaling.down.period_seconds, now_s)
    others: tuple[tuple[int, Limit], ...] = (
        (min(steady, current), "DownStabilization"),
        (current - max(room, 0), "DownRate"),
    )
    for groups, name in others:
        if groups > allowed:
            allowed, limit = groups, name
    return allowed, limit


def _ceiling(moment: Moment, bounds: Bounds, memory: Memory) -> Limit | None:
    """Return the limit that kept more groups from coming, while the need stays near it.

    Where demand is right at max, noise asks for one more now and then. That is one state and not two.
    """
    is_near = moment.demand.is_known and moment.demand.most > moment.current * (1.0 - law.DOWN_MARGIN)
    if memory.ceiling is None or not is_near:
        return None
    _, limit = bounds.up(moment.current + 1, moment.current)
    return limit


def _why_not(moment: Moment, verdict: _Verdict) -> Limit | None:
    """Return what keeps the number where it is, if anything does."""
    if not verdict.may_fall:
        if moment.demand.is_known:
            return "GatewayUnknown"
        nobody_serves = moment.situation.serving <= 0 and moment.credit.remaining_s
        return "Starting" if nobody_serves or verdict.without_credit else "MissingMetrics"
    if verdict.without_credit:
        return "Starting"
    if verdict.survivors_fail:
        return "Survivors"
    return "Infeasible" if moment.kept.infeasible else None
