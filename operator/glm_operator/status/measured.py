"""What the autoscaler's last look at a deployment came to, and when a status has to say it anew. Pure.

A status that follows every number would be written at every look. What somebody acts on (a decision, a promise that is
missed, metrics that are away) shows at once. Numbers show when they differ by more than a tenth, and stay so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glm_operator.api.reasons import Reason
from glm_operator.api.scaling import Mode, Scaling
from glm_operator.api.slo import SIGNALS, Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.constants import LATENCY_STALE_S
from glm_operator.autoscale.decision import Decision, Situation
from glm_operator.autoscale.estimate.latency import percentile, summed
from glm_operator.autoscale.series import STATUS_WINDOW_S, Latencies
from glm_operator.autoscale.signals import ClassSignals, Input, State

NOTEWORTHY = 0.1
"""Share by which a number must differ from the one that the status shows."""

NOTEWORTHY_SHARE = 0.005
"""The same of shares near 1, as attainment is: a tenth of them would be an alarm."""

NOTEWORTHY_BUDGET = 0.05
"""The same of an error budget, of the whole of it."""

LIMITS_TO_ACT_ON = frozenset({"Max", "GPUBudget", "NamespaceGPUBudget", "ResourceQuota", "Infeasible"})
"""The other limits come and go with the load."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One decision that changed the number of groups, or would have (mode Observe), or somebody else's."""

    at_s: float
    before: int
    after: int
    reason: str
    message: str
    limited_by: str | None = None
    is_done: bool = True  # spec.replicas was set by the operator


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One look."""

    at_s: float
    uid: str  # of the deployment: another of the same name has nothing to do with it
    mode: Mode
    metrics: Trouble  # the reason and message of MetricsAvailable
    source: str | None = None  # Prometheus or Workers
    latency: Mapping[str, Input] = field(default_factory=dict)  # by signal: p95 of the requests of all classes
    classes: tuple[ClassSignals, ...] = ()
    met: Mapping[str, bool] = field(default_factory=dict)  # by class with traffic: whether every threshold holds
    decision: Decision | None = None  # None: nothing is decided (External, Disabled, zero groups)
    refused: Trouble | None = None  # why the API server did not let us scale
    changes: tuple[Change, ...] = ()  # the last ten since the operator began, newest first
    sampled_at_s: float | None = None  # of the newest sample of any group
    situation: Situation | None = None
    static_groups: int = 0  # the most groups that were wanted within a day
    decided: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by reason and direction: how often
    unpromised: frozenset[str] = frozenset()  # groups that serve and measure by other promises than spec.slo


def is_measured(scaling: Scaling | None, slo: Slo | None, *, has_prometheus: bool) -> bool:
    """Tell whether a deployment is looked at: nobody pays for numbers that nobody asked for."""
    wants = scaling is not None and scaling.mode in ("Active", "Observe")
    return has_prometheus or wants or bool(slo is not None and slo.classes)


def overall(latencies: Latencies | None, now_s: float) -> dict[str, Input]:
    """Return the 95th percentile of each signal over the requests of all classes, STATUS_WINDOW_S."""
    if latencies is None:
        return {}
    everybody = [replace(each, slo_class="") for each in latencies.buckets]
    is_stale = now_s - latencies.at_s > LATENCY_STALE_S
    found: dict[str, Input] = {}
    for signal in SIGNALS:
        counts = summed(everybody, "", signal, STATUS_WINDOW_S)
        p95 = percentile(counts, 95)
        state = State.UNKNOWN if not counts else State.STALE if is_stale else State.IDLE if p95 is None else State.VALUE
        found[signal] = Input(state, p95 or 0.0, latencies.at_s)
    return found


AVAILABLE: frozenset[Reason] = frozenset({"MetricsRead", "MetricsFallback"})
"""Reasons of MetricsAvailable with which there are numbers."""


ON_THEIR_WAY: frozenset[Reason] = frozenset({"MetricsMissing"})
"""Reasons of MetricsAvailable that say nothing against it: there will be numbers when groups serve."""


def is_held(measured: Measured) -> bool:
    """Tell whether the number of groups is held: there are no numbers, or none that may be believed."""
    if measured.metrics.reason in AVAILABLE | ON_THEIR_WAY:
        return False
    return measured.source is None or (measured.decision is not None and measured.decision.is_blind)


def shows_at_once(shown: Measured, new: Measured) -> bool:
    """Tell whether a status has to say something else now."""
    return _acted_on(shown) != _acted_on(new) or (has_no_latency(shown) and not has_no_latency(new))


def has_no_latency(measured: Measured) -> bool:
    """Tell whether nothing is known of any class, not even that it had no request."""
    known = (value.state for each in measured.classes for value in each.status_latency.values())
    return not measured.met and State.IDLE not in known


def shows_in_time(shown: Measured, new: Measured) -> bool:
    """Tell whether a status should say something else, if it stays so."""
    before, after = shown.decision, new.decision
    if (_why(before), shown.source) != (_why(after), new.source) or _differ(_inputs(before), _inputs(after)):
        return True
    return _differ(shown.latency, new.latency) or _classes_differ(shown.classes, new.classes)


def _acted_on(measured: Measured) -> tuple[object, ...]:
    decision = measured.decision
    limit = decision.limited_by if decision is not None and decision.limited_by in LIMITS_TO_ACT_ON else None
    return (
        measured.mode,
        measured.metrics.reason,
        None if measured.refused is None else measured.refused.reason,
        dict(measured.met),
        measured.changes,
        None if decision is None else (decision.desired, decision.current, decision.starting, limit),
        None if decision is None else (decision.least, decision.most, decision.scheduled),
        is_held(measured),
        frozenset() if decision is None else frozenset(decision.infeasible),
    )


def _why(decision: Decision | None) -> tuple[object, ...]:
    return () if decision is None else (decision.cause, decision.limited_by)


def _inputs(decision: Decision | None) -> Mapping[str, Input]:
    if decision is None:
        return {}
    return {name: value for name, value in decision.inputs.items() if isinstance(value, Input)}


def _classes_differ(shown: tuple[ClassSignals, ...], new: tuple[ClassSignals, ...]) -> bool:
    before, after = ({each.name: each for each in classes} for classes in (shown, new))
    if before.keys() != after.keys():
        return True
    return any(
        _differ(before[name].status_latency, after[name].status_latency)
        or _is_other(before[name].attainment, after[name].attainment, least=NOTEWORTHY_SHARE, share=0)
        or _is_other(before[name].budget_left, after[name].budget_left, least=NOTEWORTHY_BUDGET, share=0)
        for name in before
    )


def _differ(shown: Mapping[str, Input], new: Mapping[str, Input]) -> bool:
    if shown.keys() != new.keys():
        return True
    return any(_is_other(shown[name], new[name]) for name in shown)


def _is_other(shown: Input, new: Input, *, least: float = 1e-9, share: float = NOTEWORTHY) -> bool:
    if shown.state is not new.state:
        return True
    return abs(new.value - shown.value) > max(least, share * abs(shown.value))
