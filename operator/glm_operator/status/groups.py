"""The status of one replica group, and what is reported of one that is not ready. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from glm_operator import names
from glm_operator.api.reasons import Reason
from glm_operator.api.status import Failure, GroupState, GroupStatus
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport

MEETING_LIMIT = timedelta(minutes=2)
"""Pods that run need seconds to find each other. After so long something between them is in the way."""

FAILURE_BYTES = 500
"""Of what failed last this much is kept: a status of a hundred groups must stay small."""

WORD_BYTES = 64
"""As above of what a worker says in a word."""


def group_status(
    group: ObservedGroup,
    report: GroupReport | None,
    finding: Trouble | None,
    *,
    stays: bool,
    previous: Mapping[str, Any] | None = None,
) -> GroupStatus:
    """Return a group's status. finding: why it is not ready, if it stays and is not.

    previous: its status before. What only its workers know stays as it was while they are not heard: unknown is not 0.
    """
    if report is None and group.is_available and previous:
        known = {key: previous[key] for key in ("generation", "lastFailure") if key in previous}
        now = {"name": group.name, "revision": group.revision, "ready": True, "state": "Ready" if stays else "Draining"}
        return GroupStatus.model_validate({**known, "restarts": previous.get("restarts", 0), **now})
    return GroupStatus(
        name=group.name,
        revision=group.revision or next((pod.revision for pod in group.pods), ""),
        ready=group.is_available,
        state=_state(finding, report) if stays else "Draining",
        generation=report.generation if report is not None else None,
        load=report.load_progress() if report is not None and not group.is_available else None,
        restarts=sum(pod.restarts for pod in group.pods) + (report.deaths_while_serving if report is not None else 0),
        last_failure=_last_failure(group, report),
    )


def why_not_ready(group: ObservedGroup, report: GroupReport | None, now: datetime) -> Trouble | None:
    """Return what keeps a group from serving; None if it serves."""
    if group.is_available:
        return None
    if group.trouble is not None:
        return Trouble(group.name, group.trouble.reason, group.trouble.message)
    if group.exists and any(pod.revision != group.revision for pod in group.pods):
        return Trouble(group.name, "GroupsPending", "pods of the revision before are draining")
    if draining := [pod.name for pod in group.pods if pod.is_leaving]:
        return Trouble(group.name, "GroupsPending", f"draining: {', '.join(draining)}")
    if report is None:
        return _without_report(group)
    if apart := _apart(group, report, now):
        return Trouble(group.name, "GroupsNotReady", apart)
    failure = report.last_failure(group.name)
    # The failures in a row are forgotten only a while after the group serves again.
    if report.consecutive_start_failures and failure is not None and report.state != "serving":
        who = f"rank {failure.rank} of pod {failure.pod}" if failure.rank is not None else f"pod {failure.pod}"
        num_failed = report.consecutive_start_failures
        in_a_row = f" ({num_failed} starts failed in a row)" if num_failed > 1 else ""
        return Trouble(group.name, "LoadFailed", f"{who} {failure.reason} while starting: {failure.message}{in_a_row}")
    if report.has_served and report.state != "serving":
        said = f"; {failure.reason}: {failure.message}" if failure is not None else ""
        return Trouble(group.name, "GroupsNotReady", f"served before and is starting again{said}")
    return Trouble(group.name, "GroupsStarting", _progress(report))


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


def _without_report(group: ObservedGroup) -> Trouble:
    if any(pod.is_scheduled and pod.ip for pod in group.pods):
        return Trouble(group.name, "GroupsStarting", "containers are starting")
    if any(pod.is_scheduled for pod in group.pods):
        return Trouble(group.name, "GroupsStarting", "containers are created: images pulled, volumes mounted")
    return Trouble(group.name, "GroupsPending", "creating pods")


def _progress(report: GroupReport) -> str:
    if report.state == "waiting_for_peers":
        missing = ", ".join(str(index) for index in report.missing_pods)
        return f"waiting for pods {missing} of the group" if missing else "waiting for the pods of the group to meet"
    load = report.load_progress()
    if report.state == "starting" and load is not None:
        return f"loading weights, {load.done_bytes * 100 // load.total_bytes} %"
    return {"serving": "serving, not ready yet", "draining": "draining"}.get(report.state, "starting")


def _state(finding: Trouble | None, report: GroupReport | None) -> GroupState:
    if finding is None:
        return "Ready"
    if report is not None and report.state == "backing_off":
        return "BackingOff"
    states: dict[Reason, GroupState] = {
        "CrashLooping": "BackingOff",
        "LoadFailed": "BackingOff",
        "GroupsNotReady": "NotReady",
        "NodeLost": "NotReady",
        "GroupsStarting": "Starting",
    }
    return states.get(finding.reason, "Pending")


def _last_failure(group: ObservedGroup, report: GroupReport | None) -> Failure | None:
    for pod in group.pods:
        if pod.trouble is not None and pod.trouble.reason == "CrashLooping":
            return _cut(Failure(rank=None, pod=pod.name, reason="exited", message=pod.trouble.message, time=None))
    failure = report.last_failure(group.name) if report is not None else None
    return _cut(failure) if failure is not None else None


def _cut(failure: Failure) -> Failure:
    cut = {"reason": shortened(failure.reason, WORD_BYTES), "message": shortened(failure.message, FAILURE_BYTES)}
    return failure.model_copy(update=cut)


def shortened(text: str, num_bytes: int) -> str:
    """Return the start of a text that fits so many bytes of JSON, where a quote or a line end takes more than one."""
    cut = text.encode()[:num_bytes].decode(errors="ignore")
    while (size := len(json.dumps(cut, ensure_ascii=False).encode()) - 2) > num_bytes:
        cut = cut[: len(cut) * num_bytes // size]
    return cut
