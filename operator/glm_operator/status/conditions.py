"""conditions(facts) -> the conditions of a status, each with a reason of the one list. Pure."""

from datetime import UTC

from glm_operator import names
from glm_operator.api.reasons import Reason, is_bad
from glm_operator.api.status import Condition, ConditionStatus, ConditionType
from glm_operator.api.trouble import Trouble, worst
from glm_operator.observe.observed import ObservedGroup
from glm_operator.status.facts import Facts
from glm_operator.status.gateway import gateway_ready
from glm_operator.status.groups import shortened
from glm_operator.status.policy import policy_applied
from glm_operator.status.scaling import metrics_available, scaling_active
from glm_operator.status.settings import settings_known
from glm_operator.status.slo import slo_met

MESSAGE_BYTES = 1024


def conditions(facts: Facts) -> list[Condition]:
    """Return every condition. lastTransitionTime moves only where the status flips."""
    groups_ready = _groups_ready(facts)
    progressing = _progressing(facts, groups_ready)
    return [
        _planned(facts),
        groups_ready,
        progressing,
        _degraded(facts),
        _up_to_date(facts),
        _say(facts, "MetricsAvailable", *metrics_available(facts)),
        _say(facts, "ScalingActive", *scaling_active(facts)),
        _say(facts, "SLOMet", *slo_met(facts)),
        _say(facts, "PolicyApplied", *policy_applied(facts)),
        _say(facts, "SettingsKnown", *settings_known(facts)),
        _say(facts, "GatewayReady", *gateway_ready(facts)),
        _ready(facts, groups_ready),
        *_kstatus(facts, progressing),
    ]


def _say(facts: Facts, kind: ConditionType, status: ConditionStatus, reason: Reason, message: str) -> Condition:
    old = facts.before(kind)
    has_flipped = old.get("status") != status or not old.get("lastTransitionTime")
    return Condition.model_validate(
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": shortened(message, MESSAGE_BYTES),
            "observedGeneration": facts.generation,
            "lastTransitionTime": facts.now.astimezone(UTC) if has_flipped else old["lastTransitionTime"],
        }
    )


def _as(facts: Facts, kind: ConditionType, like: Condition, status: ConditionStatus | None = None) -> Condition:
    return _say(facts, kind, status or like.status, like.reason, like.message)


def _planned(facts: Facts) -> Condition:
    if facts.refused is not None:
        return _say(facts, "Planned", "False", facts.refused.reason, facts.refused.message)
    assert facts.target is not None
    layout = facts.target.layout
    if layout is None:
        return _say(facts, "Planned", "True", "LayoutFound", "a group is as its record says")
    ranks = f"{layout.ranks} rank{'s' if layout.ranks > 1 else ''}"
    pods = f"{layout.pods_per_group} pod{'s' if layout.pods_per_group > 1 else ''}"
    message = f"a group is {pods} with {ranks}: experts over {layout.expert}, attention over {layout.tensor}"
    return _say(facts, "Planned", "True", "LayoutFound", message)


def _groups_ready(facts: Facts) -> Condition:
    num_ready, num_wanted = facts.num_ready, len(facts.members)
    if facts.has_nothing:
        return _never_accepted(facts, "GroupsReady")
    if not num_wanted:
        return _say(facts, "GroupsReady", "True", "ScaledToZero", "no group is wanted")
    if num_ready == num_wanted:
        return _say(facts, "GroupsReady", "True", "AllGroupsReady", f"{num_ready}/{num_wanted} groups are ready")
    finding = worst([*facts.findings.values()])
    others = f" (and {len(facts.findings) - 1} more)" if len(facts.findings) > 1 else ""
    message = f"{num_ready}/{num_wanted} groups are ready; {finding.about}: {finding.message}{others}"
    return _say(facts, "GroupsReady", "False", finding.reason, message)


def _progressing(facts: Facts, groups_ready: Condition) -> Condition:
    if facts.stuck is not None:
        return _say(facts, "Progressing", "False", "RolloutStuck", _stuck(facts, facts.stuck))
    if (facts.outdated or facts.moving) and facts.target is not None:
        if facts.target.policy.paused and facts.outdated:
            held = f"paused; still to be moved to revision {facts.target.revision}: {', '.join(facts.outdated)}"
            return _say(facts, "Progressing", "False", "RolloutPaused", held)
        return _say(facts, "Progressing", "True", "RollingOut", _rolling_out(facts))
    if facts.goers and facts.target is not None:
        going = ", ".join(group.name for group in facts.goers)
        return _say(facts, "Progressing", "True", "ScalingDown", f"draining: {going}")
    if facts.has_nothing:
        return _never_accepted(facts, "Progressing")
    is_up = groups_ready.status == "True"
    missing = next(iter(facts.blocked), None) if is_up else _write_clients_miss(facts)
    if missing is not None:
        waits = missing.reason == "GroupsPending"
        return _say(facts, "Progressing", "True" if waits else "False", missing.reason, missing.message)
    if is_up:
        return _say(facts, "Progressing", "False", "Settled", "up to date")
    is_moving = groups_ready.reason in ("GroupsPending", "GroupsStarting", "GroupsNotReady", "NodeLost")
    return _as(facts, "Progressing", groups_ready, "True" if is_moving else "False")


def _rolling_out(facts: Facts) -> str:
    assert facts.target is not None
    num_there = sum(group.exists for group in facts.members)
    num_done = num_there - len(facts.outdated) - len(facts.moving)
    message = f"{num_done}/{len(facts.members)} groups are at revision {facts.target.revision}"
    waits_for = [*facts.moving, *(group.name for group in (facts.decision.unproven if facts.decision else ()))]
    for name in dict.fromkeys(waits_for):
        finding = facts.findings.get(name)
        message += f"; {name}: {finding.message if finding is not None else 'ready, not yet for minReadySeconds'}"
    message += "".join(f"; {blocked.message}" for blocked in facts.blocked[:3])
    if facts.outdated:
        message += f"; still to be moved: {', '.join(facts.outdated[:20])}"
    if len(facts.members) == 1:
        message += "; with one group the rollout interrupts service"
    return message


def _stuck(facts: Facts, group: ObservedGroup) -> str:
    assert facts.target is not None
    finding = facts.findings.get(group.name)
    cause = f": {finding.message}" if finding is not None else ""
    rest = f"; not moved: {', '.join(facts.outdated[:20])}" if facts.outdated else ""
    limit_s = facts.target.progress_deadline_s
    return f"{group.name} did not become available at revision {group.revision} within {limit_s} s{cause}{rest}"


def _degraded(facts: Facts) -> Condition:
    lasting = [blocked for blocked in facts.blocked if blocked.is_bad]
    if lasting:
        return _say(facts, "Degraded", "True", lasting[0].reason, lasting[0].message)
    if facts.refused is not None:
        reason: Reason = facts.refused.reason if facts.has_nothing else "EditRefused"
        return _say(facts, "Degraded", "True", reason, facts.refused.message)
    bad = [finding for finding in facts.findings.values() if finding.is_bad]
    if bad:
        found = worst(bad)
        return _say(facts, "Degraded", "True", found.reason, f"{found.about}: {found.message}")
    if facts.stuck is not None:
        return _say(facts, "Degraded", "True", "RolloutStuck", _stuck(facts, facts.stuck))
    return _say(facts, "Degraded", "False", "Healthy", "healthy")


def _up_to_date(facts: Facts) -> Condition:
    """Tell what groups lack for being older than this operator; what they lack is no fault."""
    if facts.refused is not None or facts.target is None:
        assert facts.refused is not None
        return _say(facts, "UpToDate", "Unknown", facts.refused.reason, facts.refused.message)
    if facts.target.newer_revision is not None:
        waits = f"; {facts.adoption_waits}" if facts.adoption_waits else ""
        if facts.target.is_pinned and facts.target.policy.adopt == "Automatic":
            waits += f"; revision {facts.target.revision} was asked for by name, so Automatic leaves it"
        message = (
            f"this operator version would render revision {facts.target.newer_revision}; groups stay at "
            f"{facts.target.revision}, made from what was kept, until it is adopted: "
            f"kubectl glm rollout adopt {facts.name} -n {facts.namespace}{waits}"
        )
        return _say(facts, "UpToDate", "False", "NewerRendering", message)
    before = facts.before("UpToDate")
    unheard = [group.name for group in facts.members if group.is_available and group.name not in facts.reports]
    if unheard and before.get("reason") == "OlderWorkers":  # an operator that has just started has not asked them yet
        return _say(facts, "UpToDate", "False", "OlderWorkers", before["message"])
    silent = [
        name
        for name, report in sorted(facts.reports.items())
        if report.state == "serving" and not report.reports_in_flight_tokens
    ]
    if silent:
        message = f"no tokens in flight reported by {', '.join(silent[:20])}; a scale-down chooses by index"
        return _say(facts, "UpToDate", "False", "OlderWorkers", message)
    message = "groups are rendered as this operator version would"
    if facts.target.passed_over:
        message += (
            f"; revision {facts.target.passed_over}, which was asked for by name, is not taken: it speaks TLS, and "
            "there is no gateway with certificates to ask it"
        )
    return _say(facts, "UpToDate", "True", "UpToDate", message)


def _write_clients_miss(facts: Facts) -> Trouble | None:
    """Return what could not be written and keeps clients from groups, or a group that is down from coming up."""
    needed = {facts.name}
    by = names.groups_service(facts.name)
    if facts.front.selector is not None and ("v1", "Service", by) not in facts.observed.live:
        needed.add(by)  # by which the gateway finds groups
    down = {group.name for group in facts.members if not group.is_available}
    if down:
        needed |= {*down, names.rendezvous_service(facts.name), names.service_account(facts.name)}
        needed |= {pod.name for group in facts.observed.groups.values() if group.name in down for pod in group.pods}
    return next((blocked for blocked in facts.blocked if blocked.about in needed), None)


def _ready(facts: Facts, groups_ready: Condition) -> Condition:
    if facts.has_nothing:
        return _never_accepted(facts, "Ready")
    missing = _write_clients_miss(facts)
    if missing is not None:
        return _say(facts, "Ready", "False", missing.reason, missing.message)
    if facts.front.selector is not None and not any(pod.is_ready for pod in facts.observed.gateway):
        status, reason, message = gateway_ready(facts)
        if status != "True":
            return _say(facts, "Ready", "False", reason, f"no pod of the gateway answers clients: {message}")
    if groups_ready.reason == "ScaledToZero" and _wakes(facts):
        message = "no group runs; the gateway holds the next request, and a group is started for it"
        return _say(facts, "Ready", "True", "ScaledToZero", message)
    if groups_ready.reason == "ScaledToZero":
        return _say(facts, "Ready", "False", "ScaledToZero", "no group is wanted: spec.replicas is 0")
    if groups_ready.status == "True" and facts.refused is not None:
        of = " on the last accepted spec; the newest" if facts.target is not None else "; the newest spec"
        message = f"{groups_ready.message}{of} was refused: {facts.refused.message}"
        return _say(facts, "Ready", "True", "EditRefused", message)
    return _as(facts, "Ready", groups_ready)


def _wakes(facts: Facts) -> bool:
    """Whether a request brings a group where there is none. That no pod of the gateway answers was said before."""
    scales = facts.scaling is not None and facts.scaling.mode == "Active" and facts.scaling.may_be_zero
    return scales and facts.front.selector is not None


def _kstatus(facts: Facts, progressing: Condition) -> list[Condition]:
    """Return what Flux and Argo CD look at: a refused spec, or what stands still, has failed; else it is on its way."""
    if facts.refused is not None:
        stalled = _say(facts, "Stalled", "True", facts.refused.reason, facts.refused.message)
    elif progressing.status == "False" and is_bad(progressing.reason):
        stalled = _as(facts, "Stalled", progressing, "True")
    else:
        stalled = _say(facts, "Stalled", "False", "Healthy", "healthy")
    if stalled.status == "True":
        return [_as(facts, "Reconciling", stalled, "False"), stalled]
    return [_as(facts, "Reconciling", progressing), stalled]


def _never_accepted(facts: Facts, kind: ConditionType) -> Condition:
    assert facts.refused is not None
    return _say(facts, kind, "False", facts.refused.reason, facts.refused.message)
