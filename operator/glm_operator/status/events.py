"""What people are told as Events: at transitions of conditions, and of what a pass did to groups. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import Observed
from glm_operator.rollout.membership import SCALED_DOWN
from glm_operator.rollout.records import latest
from glm_operator.rollout.steps import GroupStep
from glm_operator.rollout.target import Target

_TOLD: Mapping[str, tuple[Reason, ...]] = {
    "MetricsAvailable": (
        "NoSeries",
        "MetricsStale",
        "MetricsUnreachable",
        "MetricsRefused",
        "MetricsFallback",
        "WatchSilent",
        "OlderWorkers",
    ),
    "SLOMet": ("SLOMissed", "SLOInfeasible", "PromisesRefused"),
    "PolicyApplied": ("PolicyNotTaken",),
    "SettingsKnown": ("SettingsIgnored",),
}
"""Reasons whose beginning and end are told. That traffic comes and goes is no Event."""

_ROLLING: tuple[Reason, ...] = ("RollingOut", "RolloutStuck", "RolloutPaused")


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Trouble]:
    """Return what changed: Ready flipped, Planned or Degraded changed in status or reason, a rollout ended or stopped,
    a promise is broken or kept again or was never to be kept, metrics are away or back.

    Messages may change at every pass and reasons of Ready on its way up: neither is an Event.
    """
    old = {condition["type"]: condition for condition in before.get("conditions") or []}
    told = []
    for condition in after["conditions"]:
        kind, reason = condition["type"], condition["reason"]
        was = old.get(kind, {})
        has_flipped = was.get("status", "False") != condition["status"]
        has_changed = has_flipped or was.get("reason", reason) != reason
        if (
            (kind == "Planned" and (has_changed or not was))
            or (kind == "Degraded" and has_changed)
            or (kind == "Ready" and has_flipped)
            or (reason == "SLOInfeasible" and not was)
            or (has_changed and was and {was["reason"], reason} & {*_TOLD.get(kind, ())})
        ):
            told.append(Trouble(kind, reason, condition["message"]))
        elif kind == "Progressing" and has_changed:
            told += _of_rollout(was.get("reason"), reason, condition["message"], after)
    # A refused spec shows up in Planned and in Degraded: once is enough.
    return list({event.message: event for event in reversed(told)}.values())[::-1]


def _of_rollout(before: Reason | None, now: Reason, message: str, status: Mapping[str, Any]) -> list[Trouble]:
    if now in ("RolloutStuck", "RolloutPaused"):
        return [Trouble("Progressing", now, message)]
    if before in _ROLLING and now not in _ROLLING and status.get("upToDate") == status.get("ready"):
        return [Trouble("Progressing", "RolloutCompleted", f"all groups are at revision {status.get('revision')}")]
    return []


def of_acceptance(target: Target, observed: Observed) -> list[Trouble]:
    """Return the Event of a rollout that begins: a target whose record has just been written, over what was before."""
    last = latest(observed.records)
    if last is None or last.revision == target.revision:
        return []
    if target.revision in {record.revision for record in observed.records}:
        return [Trouble("rollout", "RolledBack", f"groups move back to revision {target.revision}")]
    if target.is_adopted:
        return [Trouble("rollout", "RenderingAdopted", f"groups move to the newer rendering {target.revision}")]
    return [Trouble("rollout", "RolloutStarted", f"groups move from revision {last.revision} to {target.revision}")]


def of_steps(done: Iterable[GroupStep], observed: Observed) -> list[Trouble]:
    """Return what a pass did to groups that people look for: one moved, one was replaced, one goes.

    done: the steps that were carried out. observed: before them.
    """
    told = []
    for step in done:
        if step.delete or (step.why and step.manifest is None):
            reason: Reason = "ScalingDown" if step.why == SCALED_DOWN else "GroupReplaced"
            told.append(Trouble(step.name, reason, f"{step.name} goes: {step.why}"))
        elif step.why and step.index in observed.groups and observed.groups[step.index].revision != step.revision:
            told.append(Trouble(step.name, "GroupMoved", f"{step.name} is {step.why}"))
    return told
