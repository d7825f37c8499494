"""The status of one replica group, and what is to be said about one that is not ready. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from glm_operator import names
from glm_operator.api.status import Failure, GroupState, GroupStatus, Reason
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.report import GroupReport

SEVERITY: tuple[Reason, ...] = (
    "ContainerConfigError",
    "ImagePullFailed",
    "LoadFailed",
    "CrashLooping",
    "Unschedulable",
    "NameConflict",
    "ApplyRefused",
    "WriteDenied",
    "WriteFailed",
    "GroupsNotReady",
    "GroupsStarting",
    "GroupsPending",
)
"""Worst first: of several groups that are not ready, this order decides which one is told of."""

MEETING_LIMIT = timedelta(minutes=2)
"""Pods that run need seconds to find each other. After so long something between them is in the way."""

_BAD = SEVERITY[: SEVERITY.index("GroupsStarting")]


@dataclass(frozen=True)
class Finding:
    """Why one wanted group is not ready."""

    group: str
    reason: Reason
    message: str

    @property
    def is_bad(self) -> bool:
        """Whether it is more than a matter of waiting."""
        return self.reason in _BAD


def worst(findings: list[Finding]) -> Finding:
    """Return the first of the worst findings; there must be one."""
    return min(findings, key=lambda finding: SEVERITY.index(finding.reason))


def group_status(
    observed: Observed, reports: Mapping[str, GroupReport], deployment: str, index: int, wanted: int, now: datetime
) -> tuple[GroupStatus, Finding | None]:
    """Return a group's status and, if it is wanted and not ready, why."""
    name = names.group_name(deployment, index)
    group = observed.groups.get(index) or ObservedGroup(index, name, exists=False, revision="", num_pods=0, pods=())
    report = reports.get(name)
    finding = None if group.is_available or index >= wanted else _finding(group, report, now)
    status = GroupStatus(
        name=name,
        revision=group.revision or next((pod.revision for pod in group.pods), ""),
        ready=group.is_available,
        state="Draining" if index >= wanted else _state(finding, report),
        generation=report.generation if report is not None else None,
        load=report.load_progress() if report is not None and not group.is_available else None,
        restarts=sum(pod.restarts for pod in group.pods) + (report.deaths_while_serving if report is not None else 0),
        last_failure=_last_failure(group, report),
    )
    return status, finding


def _finding(group: ObservedGroup, report: GroupReport | None, now: datetime) -> Finding:
    trouble = group.trouble
    if trouble is not None:
        return Finding(group.name, trouble.reason, trouble.message)
    if group.exists and any(pod.revision != group.revision for pod in group.pods):
        return Finding(group.name, "GroupsPending", "pods of the revision before are draining")
    if draining := [pod.name for pod in group.pods if pod.is_leaving]:
        return Finding(group.name, "GroupsPending", f"draining: {', '.join(draining)}")
    if report is None:
        return _finding_without_report(group)
    if apart := _apart(group, report, now):
        return Finding(group.name, "GroupsNotReady", apart)
    failure = report.last_failure(group.name)
    # The failures in a row are forgotten only a while after the group serves again.
    if report.consecutive_start_failures and failure is not None and report.state != "serving":
        who = f"rank {failure.rank} of pod {failure.pod}" if failure.rank is not None else f"pod {failure.pod}"
        num_failed = report.consecutive_start_failures
        in_a_row = f" ({num_failed} starts failed in a row)" if num_failed > 1 else ""
        return Finding(group.name, "LoadFailed", f"{who} {failure.reason} while starting: {failure.message}{in_a_row}")
    if report.has_served and report.state != "serving":
        said = f"; {failure.reason}: {failure.message}" if failure is not None else ""
        return Finding(group.name, "GroupsNotReady", f"served before and is starting anew{said}")
    return Finding(group.name, "GroupsStarting", _progress(report))


def _apart(group: ObservedGroup, report: GroupReport, now: datetime) -> str | None:
    """Tell why pods that all run are no group, or None while that is a matter of seconds."""
    since = [pod.running_since for pod in group.pods if pod.running_since is not None]
    if report.state != "waiting_for_peers" or len(since) < group.num_pods:
        return None
    if report.refused_pods:
        return f"its pods do not fit together: {'; '.join(report.refused_pods)}"
    if ended_at := report.last_ended_at:
        since.append(ended_at)
    if now - max(since) < MEETING_LIMIT:
        return None
    missing = ", ".join(names.pod_name(group.name, index) for index in report.missing_pods)
    where = f"{names.pod_name(group.name, 0)} at port {names.COORDINATOR_PORT}"
    return f"all pods run, and {where} has not heard of {missing} for minutes: is the port let through?"


def _finding_without_report(group: ObservedGroup) -> Finding:
    if any(pod.is_scheduled and pod.ip for pod in group.pods):
        return Finding(group.name, "GroupsStarting", "containers are starting")
    if any(pod.is_scheduled for pod in group.pods):
        return Finding(group.name, "GroupsStarting", "containers are being made: images pulled, volumes mounted")
    return Finding(group.name, "GroupsPending", "pods are being made")


def _progress(report: GroupReport) -> str:
    if report.state == "waiting_for_peers":
        missing = ", ".join(str(index) for index in report.missing_pods)
        return f"waiting for pods {missing} of the group" if missing else "waiting for the pods of the group to meet"
    load = report.load_progress()
    if report.state == "starting" and load is not None:
        return f"loading weights, {load.done_bytes * 100 // load.total_bytes} %"
    return {"serving": "serving, not ready yet", "draining": "draining"}.get(report.state, "starting")


def _state(finding: Finding | None, report: GroupReport | None) -> GroupState:
    if finding is None:
        return "Ready"
    if report is not None and report.state == "backing_off":
        return "BackingOff"
    states: dict[Reason, GroupState] = {
        "CrashLooping": "BackingOff",
        "LoadFailed": "BackingOff",
        "GroupsNotReady": "NotReady",
        "GroupsStarting": "Starting",
    }
    return states.get(finding.reason, "Pending")


def _last_failure(group: ObservedGroup, report: GroupReport | None) -> Failure | None:
    for pod in group.pods:
        if pod.trouble is not None and pod.trouble.reason == "CrashLooping":
            return Failure(rank=None, pod=pod.name, reason="exited", message=pod.trouble.message, time=None)
    return report.last_failure(group.name) if report is not None else None
