"""How fast requests are and whether promises are kept, as the status says it. Pure.

Nothing is shown where nothing is known: a class without traffic has no latency, and neither has one that cannot be
measured just now. An operator that has just started shows what was said before it, until it has measured itself.
"""

from typing import TypeVar

from pydantic import ValidationError

from glm_operator.api.reasons import Reason
from glm_operator.api.slo import SIGNALS, Slo, SloClass
from glm_operator.api.status import ConditionStatus, LatencyStatus, SloClassStatus, SloStatus
from glm_operator.autoscale.estimate.promises import out_of_reach
from glm_operator.autoscale.signals import UNKNOWN, ClassSignals, Input, State
from glm_operator.status import texts
from glm_operator.status.facts import Facts
from glm_operator.status.groups import shortened
from glm_operator.status.measured import AVAILABLE, Measured, has_no_latency

TEXT_BYTES = 240
"""Of a sentence; a status must stay small."""

MOST_REFUSALS = 3
"""Answers of workers that are quoted."""

Part = TypeVar("Part", LatencyStatus, SloStatus)

Said = tuple[ConditionStatus, Reason, str]
"""Status, reason and message of a condition."""


def latency_status(facts: Facts) -> LatencyStatus | None:
    """Return how fast requests of all classes are; None where nobody measures."""
    if not facts.is_measured:
        return None
    if facts.measured is None:
        return _before(LatencyStatus, facts, "latency")
    shown = {signal: _seconds(facts.measured.latency.get(signal, UNKNOWN)) for signal in ("ttft", "ttfa", "itl")}
    return LatencyStatus(ttftP95=shown["ttft"], ttfaP95=shown["ttfa"], itlP95=shown["itl"])


def slo_status(facts: Facts) -> SloStatus | None:
    """Return how each class fares; None without a class."""
    if facts.slo is None or not facts.slo.classes:
        return None
    if facts.measured is None:
        return _before(SloStatus, facts, "slo")
    infeasible = _infeasible(facts, facts.slo)
    signals = {each.name: each for each in facts.measured.classes}
    found = [signals.get(each.name, ClassSignals(name=each.name)) for each in facts.slo.classes]
    attained = [each.attainment.value for each in found if _is_value(each.attainment)]
    budgets = [each.budget_left.value for each in found if _is_value(each.budget_left)]
    return SloStatus(
        attainment=texts.share(min(attained)) if attained else None,
        budget_left=texts.percent(min(budgets)) if budgets else None,
        classes=[_class_status(each, facts.measured, infeasible.get(each.name)) for each in found],
    )


def _class_status(signals: ClassSignals, measured: Measured, infeasible: str | None) -> SloClassStatus:
    shown = {signal: _seconds(signals.status_latency.get(signal, UNKNOWN)) for signal in SIGNALS}
    return SloClassStatus(
        name=signals.name,
        met=measured.met.get(signals.name),
        **shown,
        attainment=texts.share(signals.attainment.value) if _is_value(signals.attainment) else None,
        budget_left=texts.percent(signals.budget_left.value) if _is_value(signals.budget_left) else None,
        infeasible=shortened(infeasible, TEXT_BYTES) if infeasible is not None else None,
    )


def slo_met(facts: Facts) -> Said:
    """Return whether every class is as fast as promised. It says nothing of readiness."""
    if facts.slo_fault is not None:
        return "Unknown", facts.slo_fault.reason, facts.slo_fault.message
    if facts.slo is None or not facts.slo.classes:
        return _with_refusals(facts, ("Unknown", "NoPromise", "spec.slo has no class"))
    return _with_refusals(facts, _classes_met(facts, facts.slo))


def _classes_met(facts: Facts, slo: Slo) -> Said:
    said, planned = _measured_met(facts, slo), _planned(facts, slo)
    if said[1] == "SLOInfeasible" and all(f"class {name}: " in said[2] for name in planned):
        return said
    # Nothing is measured, or not yet: what the plan says holds all the same
    told = [f"class {name}: {why}" for name, why in sorted(planned.items())]
    return ("False", "SLOInfeasible", "; ".join(told)) if told else said


def _infeasible(facts: Facts, slo: Slo) -> dict[str, str]:
    """Return why more groups cannot keep a promise, by class: by the plan, and by what was measured."""
    decision = facts.measured.decision if facts.measured is not None else None
    return _planned(facts, slo) | dict(decision.infeasible if decision is not None else {})


def _planned(facts: Facts, slo: Slo) -> dict[str, str]:
    """Return the promises that are below the floor of the plan, by class. It needs no traffic, no scaling, no group."""
    layout = facts.target.layout if facts.target is not None else None
    floor = layout.floor if layout is not None else None
    return out_of_reach(slo, floor.seconds, floor.hardware) if floor is not None else {}


def _measured_met(facts: Facts, slo: Slo) -> Said:
    serving = {name: report for name, report in facts.reports.items() if report.state == "serving"}
    if older := sorted(name for name, report in serving.items() if not report.takes_slo):
        return "Unknown", "OlderWorkers", f"{_some(older)} take no promises: their worker image is of an older version"
    measured = facts.measured
    if measured is None:
        return facts.said_before("SLOMet") or ("Unknown", "MetricsMissing", "not measured yet")
    if not facts.members:
        return "Unknown", "ScaledToZero", "no group is wanted"
    infeasible = _infeasible(facts, slo)
    told = [f"class {name}: {why}" for name, why in sorted(infeasible.items())]
    missed = [each for each in slo.classes if measured.met.get(each.name) is False and each.name not in infeasible]
    told += [_missed(each, measured) for each in missed]
    if missed and measured.decision is not None and measured.decision.limited_by is not None:
        told.append(f"scaling is limited by {measured.decision.limited_by}")
    if told:
        return "False", "SLOInfeasible" if infeasible else "SLOMissed", "; ".join(told)
    if measured.metrics.reason not in AVAILABLE:
        return "Unknown", measured.metrics.reason, measured.metrics.message
    if has_no_latency(measured):
        return "Unknown", "MetricsMissing", "no latency is measured at the moment"
    if not measured.met:
        return "Unknown", "NoTraffic", "no class had a request in the last five minutes"
    return "True", "SLOKept", f"{_some([each.name for each in slo.classes if each.name in measured.met])}: kept"


def _with_refusals(facts: Facts, said: Said) -> Said:
    """Add which workers refuse the promises. A promise that is missed stays so; none is kept by who has others."""
    status, reason, message = said
    refused = _refused(facts)
    if not refused or refused in message:  # as it was said before this operator
        return said
    if status == "False" or reason == "OlderWorkers":
        return status, reason, f"{message}; {refused}"
    return "Unknown", "PromisesRefused", refused


def _refused(facts: Facts) -> str:
    """Return which groups that serve refuse the promises, and what they answer; empty: none does."""
    serving = [name for name, report in facts.reports.items() if report.state == "serving"]
    told = [f"{name}: {facts.promises_refused[name]}" for name in sorted(serving) if name in facts.promises_refused]
    more = f" (and {len(told) - MOST_REFUSALS} more)" if len(told) > MOST_REFUSALS else ""
    return "; ".join(shortened(each, TEXT_BYTES) for each in told[:MOST_REFUSALS]) + more


def _before(kind: type[Part], facts: Facts, name: str) -> Part:
    """Return what was said before this operator; nothing where we cannot read it."""
    try:
        return kind.model_validate(facts.previous.get(name) or {})
    except ValidationError:
        return kind()


def _missed(promise: SloClass, measured: Measured) -> str:
    signals = next((each for each in measured.classes if each.name == promise.name), ClassSignals(name=promise.name))
    found = [
        f"{signal} P{promise.percentile} is {texts.seconds(latency.value)}, promised {texts.seconds(limit)}"
        for signal, limit in promise.thresholds.items()
        if _is_value(latency := signals.status_latency.get(signal, UNKNOWN)) and latency.value > limit
    ]
    return f"class {promise.name}: {', '.join(found) or 'slower than promised until a moment ago'}"


def _seconds(found: Input) -> str | None:
    return texts.seconds(found.value) if _is_value(found) else None


def _is_value(found: Input) -> bool:
    return found.state is State.VALUE


def _some(names: list[str]) -> str:
    return ", ".join(names[:20])
