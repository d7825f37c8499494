"""What the autoscaler decided, on what, and whether it may act, as the status says it. Pure.

History and last scale outlive an operator: what the status said before is kept behind what this process has decided.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from glm_operator.api.scaling import Scaling
from glm_operator.api.status import ScalingEvent, ScalingStatus, SignalStatus
from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.signals import Input, State
from glm_operator.status import texts
from glm_operator.status.facts import Facts
from glm_operator.status.groups import shortened
from glm_operator.status.measured import AVAILABLE, ON_THEIR_WAY, Change, Measured, is_held
from glm_operator.status.slo import TEXT_BYTES, Said

HISTORY_LENGTH = 10

NOBODY_HEARS = frozenset({"NoGateway", "GatewayUnknown"})
"""Limits with which a request could wait unheard, so that there is a group though min is 0."""


def scaling_status(facts: Facts) -> ScalingStatus | None:
    """Return the last decision and those before it; None without spec.scaling."""
    if facts.scaling is None:
        return None
    before = _before(facts.previous)
    measured = facts.measured
    if measured is None:
        return before.model_copy(update={"mode": facts.scaling.mode})
    decision = measured.decision
    done = next((change for change in measured.changes if change.is_done), None)
    return ScalingStatus(
        mode=facts.scaling.mode,
        desired=decision.desired if decision is not None else None,
        current=decision.current if decision is not None else None,
        starting=decision.starting if decision is not None else None,
        limited_by=decision.limited_by if decision is not None else None,
        message=shortened(decision.message, TEXT_BYTES) if decision is not None else None,
        source=measured.source,
        last_scale_time=_time(done.at_s) if done is not None else before.last_scale_time,
        last_scale=_last_scale(done) if done is not None else before.last_scale,
        signals=_signals(measured),
        history=_history(measured.changes, before.history),
    )


def metrics_available(facts: Facts) -> Said:
    """Return whether what the workers measure can be read."""
    if not facts.is_measured:
        return "Unknown", "NotMeasured", "nobody asks for measurements"
    if facts.measured is None:
        return facts.said_before("MetricsAvailable") or ("Unknown", "MetricsMissing", "not measured yet")
    metrics = facts.measured.metrics
    if metrics.reason in ON_THEIR_WAY:
        return "Unknown", metrics.reason, metrics.message
    return "True" if metrics.reason in AVAILABLE else "False", metrics.reason, metrics.message


def scaling_active(facts: Facts) -> Said:
    """Return whether the operator sets spec.replicas, and what keeps it from that."""
    if facts.scaling_fault is not None:
        return "False", facts.scaling_fault.reason, facts.scaling_fault.message
    mode = facts.scaling.mode if facts.scaling is not None else "Disabled"
    if mode == "Disabled":
        return "False", "ScalingDisabled", "a person sets spec.replicas"
    if mode == "External":
        return "False", "ScalingExternal", "an HPA or KEDA sets spec.replicas"
    if mode == "Observe":
        return "False", "ScalingObserving", "the operator decides and sets nothing"
    if facts.target is not None and facts.target.replicas == 0 and not _may_be_zero(facts):
        return (
            "False",
            "ScaledToZero",
            "spec.replicas is 0, which switches scaling off until somebody sets another, whatever scaling.min is",
        )
    measured = facts.measured
    if measured is None:
        return facts.said_before("ScalingActive") or ("Unknown", "MetricsMissing", "not measured yet")
    if measured.refused is not None:
        return "False", measured.refused.reason, measured.refused.message
    if is_held(measured):
        return "False", measured.metrics.reason, f"the number of groups is held: {measured.metrics.message}"
    if measured.decision is not None and measured.decision.limited_by in NOBODY_HEARS:
        return "True", "DemandUnknown", measured.decision.message
    assert facts.scaling is not None
    return "True", "ScalingByLoad", f"the operator sets spec.replicas {_bounds(facts.scaling, measured.decision)}"


def _may_be_zero(facts: Facts) -> bool:
    return facts.scaling is not None and facts.scaling.may_be_zero


def _bounds(scaling: Scaling, decision: Decision | None) -> str:
    """Return between which numbers it is set now, and the schedules that say so."""
    if decision is None or decision.least is None:
        return f"within {scaling.min_groups} and {scaling.max_groups}"
    within = f"within {decision.least} and {decision.most}"
    return f"{within} (schedule {', '.join(decision.scheduled)})" if decision.scheduled else within


def _before(previous: Mapping[str, Any]) -> ScalingStatus:
    """Return what was said before this process; of an operator whose words we cannot read, nothing."""
    try:
        return ScalingStatus.model_validate({"mode": "Disabled", **(previous.get("scaling") or {})})
    except ValidationError:
        return ScalingStatus(mode="Disabled")


def _history(changes: tuple[Change, ...], before: list[ScalingEvent]) -> list[ScalingEvent]:
    """Return the last changes, newest first: those of this process, then those that were known before it."""
    own = [_event(change) for change in changes]
    oldest = own[-1].time if own else None
    known = [event for event in before if event not in own and (oldest is None or event.time <= oldest)]
    return [*own, *known][:HISTORY_LENGTH]


def _event(change: Change) -> ScalingEvent:
    return ScalingEvent.model_validate(
        {
            "time": _time(change.at_s),
            "from": change.before,
            "to": change.after,
            "reason": change.reason,
            "message": shortened(change.message, TEXT_BYTES),
            "limitedBy": change.limited_by,
        }
    )


def _last_scale(change: Change) -> str:
    return shortened(f"{change.before} -> {change.after}: {change.message}", TEXT_BYTES)


def _signals(measured: Measured) -> list[SignalStatus]:
    inputs = measured.decision.inputs if measured.decision is not None else {}
    return [
        SignalStatus(
            name=name,
            state=found.state.value,
            value=texts.number(found.value) if found.state in (State.VALUE, State.STALE) else None,
            measured_at=_time(found.at_s) if found.at_s is not None else None,
        )
        for name, found in inputs.items()
        if isinstance(found, Input)
    ]


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(int(at_s), UTC)
