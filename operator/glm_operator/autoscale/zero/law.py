"""When the first group comes and when the last one goes, where there may be none (spec.scaling.min 0). Pure and total.

The first comes at once when a gateway holds a request. The last goes when every gateway is known to have been asked
nothing for idleAfter, and the group has served for as long: so a start that fails, or that nobody waits for any more,
is no reason to go, and between two times of going lies idleAfter at least. Between 1 and max it is decided elsewhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from glm_operator.api.duration import to_seconds
from glm_operator.api.scaling import Scaling, Zero
from glm_operator.api.slo import Slo
from glm_operator.autoscale import constants as law
from glm_operator.autoscale.bounds.limits import Bounds
from glm_operator.autoscale.decision import Cause, Decision, Limit, Situation, number
from glm_operator.autoscale.demand import held_need
from glm_operator.autoscale.estimate.promises import promises
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.moment import Moment, held_inputs
from glm_operator.autoscale.signals import Input, Signals, State
from glm_operator.autoscale.wording import deaf
from glm_operator.autoscale.zero.asked import Asked


def idle_after_s(scaling: Scaling) -> float:
    """Return for how long no request may have come before the last group goes."""
    return to_seconds((scaling.zero or Zero()).idle_after)


def from_none(
    scaling: Scaling, slo: Slo, situation: Situation, signals: Signals, memory: Memory, bounds: Bounds, now_s: float
) -> Decision:
    """Return whether a group comes where there is none."""
    asked = signals.asked
    wanted, cause, limit, why = _first(slo, situation, signals, memory, bounds, now_s)
    desired = wanted
    if wanted:
        desired, ceiling = bounds.up(wanted, 0)
        limit = ceiling or limit
        paced = max(bounds.least, _paced(scaling, memory, now_s))
        if desired > paced:
            desired, limit = paced, "UpRate" if not scaling.up.stabilization_seconds else "UpStabilization"
    return Decision(
        desired=desired,
        wanted=wanted,
        current=0,
        starting=0,
        cause=cause,
        message=why + (f"; limited by {limit}" if limit else ""),
        limited_by=limit,
        least=bounds.least,
        most=bounds.most,
        scheduled=bounds.scheduled,
        inputs=inputs(asked, memory, scaling, now_s),
    )


def to_none(moment: Moment, decision: Decision, bounds: Bounds) -> Decision:
    """Return the decision on the last group, where what there is suffices and there may be none; else the one given."""
    asked, scaling, now_s = moment.asked, moment.scaling, moment.now_s
    more = inputs(asked, moment.memory, scaling, now_s)
    decision = replace(decision, inputs={**decision.inputs, **more})
    if bounds.least > 0:
        return decision
    if not asked.gateways:
        decision = replace(decision, least=min(1, bounds.most))
    if not (decision.current == decision.desired == 1) or decision.wanted > 1 or not moment.demand.is_known:
        return decision
    if asked.held or asked.running or moment.sums.running.value or moment.sums.waiting.value:
        return decision
    limit, why = _kept(moment, asked)
    if limit is not None:
        why = f"{why}; limited by {limit}"
    desired = 0 if limit is None else 1
    return replace(decision, desired=desired, wanted=0, cause="Idle", limited_by=limit, message=why)


def inputs(asked: Asked, memory: Memory, scaling: Scaling, now_s: float) -> Mapping[str, object]:
    """Return what gateways say, by name with unit. Of the time without a request, no more than idleAfter is told."""
    state = State.VALUE if asked.is_known else State.UNKNOWN
    asked_s = memory.idle.asked_s
    quiet_s = None if asked_s is None else min(max(now_s - asked_s, 0.0), idle_after_s(scaling))
    return {
        **held_inputs(asked, memory, now_s),
        "running at gateways, requests": Input(state, asked.running, now_s),
        "without a request, s": Input(State.UNKNOWN) if quiet_s is None else Input(state, quiet_s, now_s),
    }


def _first(
    slo: Slo, situation: Situation, signals: Signals, memory: Memory, bounds: Bounds, now_s: float
) -> tuple[int, Cause, Limit | None, str]:
    """Return how many groups are wanted where there is none, for what, what limits that, and the sentence."""
    asked, deaf_s = signals.asked, memory.idle.deaf_s
    if asked.held > 0.0:
        kept = promises(slo, signals, memory.rates, situation, memory.infeasible)
        cold_start_s = min(memory.starts.p95_s, law.LOOKAHEAD_MAX_S)
        prompt_tokens = asked.held_tokens(memory.rates.prompt_tokens or 0.0)
        need = held_need(asked.held, prompt_tokens, memory.rates, kept, cold_start_s)
        who = "1 request is" if asked.held == 1.0 else f"{number(asked.held)} requests are"
        why = f"{who} held at gateways, the oldest for {number(asked.oldest_s)} s"
        why += f"; {need:.2f} groups needed" if need > 1.0 else ""
        return max(ceil(need), 1, bounds.least), "Woken", None, why
    if bounds.least > 0:
        why = f"schedule {', '.join(bounds.scheduled)} sets {bounds.least} to {bounds.most} groups"
        return bounds.least, "Schedule", None, why
    limit: Limit = "GatewayUnknown" if asked.gateways else "NoGateway"
    if deaf_s is not None and now_s - deaf_s >= law.DEAF_S:
        why = f"{deaf(asked)}, for {number(now_s - deaf_s)} s now: nobody would hear of a request, so one group comes"
        return 1, "Bounds", limit, why
    if asked.is_deaf:
        return 0, "Idle", limit, deaf(asked)
    return 0, "Idle", None, "no group is there, and no request waits for one"


def _paced(scaling: Scaling, memory: Memory, now_s: float) -> int:
    """Return the most groups that come at once. The first is never waited for."""
    if scaling.up.stabilization_seconds:
        return 1
    return max(scaling.up.groups - memory.moved(1, scaling.up.period_seconds, now_s), 1)


def _kept(moment: Moment, asked: Asked) -> tuple[Limit | None, str]:
    """Return what keeps the last group, which nobody uses, and the sentence; None: it goes."""
    idle, scaling, now_s = moment.memory.idle, moment.scaling, moment.now_s
    limit_s = idle_after_s(scaling)
    if not asked.gateways:
        return "NoGateway", f"{deaf(asked)}, so the last group stays"
    if idle.serving_s is None:
        return "Starting", "nobody waits any more; the last group goes once it could have served"
    served_s = now_s - idle.serving_s
    quiet_s = served_s if idle.asked_s is None else now_s - idle.asked_s
    if served_s < quiet_s and served_s < limit_s:
        return "IdleAfter", f"nobody has asked in the {number(served_s)} s that the group serves; {_goes(limit_s)}"
    if quiet_s < limit_s:
        return "IdleAfter", f"no request for {number(quiet_s)} s; {_goes(limit_s)}"
    if asked.silent:
        return "GatewayUnknown", f"{deaf(asked)}, so the last group stays"
    if moment.situation.is_moving:
        return "Rollout", "nobody asks; the last group goes after the rollout"
    if moment.memory.moved(-1, scaling.down.period_seconds, now_s) >= scaling.down.groups:
        return "DownRate", f"no request for {number(quiet_s)} s; {_goes(limit_s)}"
    return None, f"no request for {number(quiet_s)} s; {_goes(limit_s)}"


def _goes(limit_s: float) -> str:
    return f"the last group goes after {number(limit_s)} s without one"
