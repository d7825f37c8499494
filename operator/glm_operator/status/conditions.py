"""summarize(facts) -> status: what the last pass saw and did, in words people act on. Pure: the time is passed in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from glm_operator import names
from glm_operator.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    GLMDeploymentStatus,
    GroupStatus,
    PlanStatus,
    Reason,
)
from glm_operator.observe.observed import Blocked, Observed
from glm_operator.observe.report import GroupReport
from glm_operator.render.labels import leader_selector, selector_text
from glm_operator.rollout.steps import Rollout, Target
from glm_operator.status.groups import Finding, group_status, worst

MESSAGE_LENGTH = 2000


@dataclass(frozen=True)
class Refused:
    """The newest spec cannot be."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Facts:
    """Everything a status is made of."""

    name: str
    namespace: str
    generation: int
    target: Target | None  # the last accepted spec; None: there never was one
    refused: Refused | None  # why the newest spec is not the target
    rollout: Rollout | None
    observed: Observed
    reports: Mapping[str, GroupReport] = field(default_factory=dict)
    blocked: tuple[Blocked, ...] = ()
    previous: Mapping[str, Any] = field(default_factory=dict)  # the status as it is now

    @property
    def wanted(self) -> int:
        """Groups there should be; without any accepted spec, those there are: nothing is taken from them."""
        return self.target.replicas if self.target is not None else 1 + max(self.observed.groups, default=-1)

    @property
    def has_nothing(self) -> bool:
        """Whether no spec was ever accepted and no group runs, not even of a spec that cannot be read any more."""
        return self.target is None and not self.observed.has_groups


def summarize(facts: Facts, now: datetime) -> dict[str, Any]:
    """Return the status, as it is written to the API server."""
    wanted = facts.wanted
    past = [group for index, group in facts.observed.groups.items() if index >= wanted]
    indices = [*range(wanted), *(group.index for group in past if not facts.observed.is_of_others(group))]
    pairs = [group_status(facts.observed, facts.reports, facts.name, index, wanted, now) for index in indices]
    groups = [status for status, _ in pairs]
    num_ready = sum(group.ready for group in groups[:wanted])
    findings = [finding for _, finding in pairs[:wanted] if finding is not None]
    status = GLMDeploymentStatus(
        observed_generation=facts.generation,
        replicas=sum(group.exists for group in facts.observed.groups.values()),
        ready_replicas=num_ready,
        ready=f"{num_ready}/{wanted}",
        gpus=facts.target.layout.gpus_per_group * wanted if facts.target is not None else 0,
        selector=selector_text(leader_selector(facts.name)),
        revision=facts.target.revision if facts.target is not None else None,
        endpoint=f"http://{facts.name}.{facts.namespace}.svc:{names.HTTP_PORT}/v1",
        plan=_plan_status(facts.target) if facts.target is not None else None,
        groups=groups,
        conditions=_conditions(facts, groups[:wanted], findings, now),
    )
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Transition:
    """A condition that changed, for an Event."""

    reason: Reason
    message: str
    is_warning: bool


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Transition]:
    """Return what people should be told of: Ready flipped, or Planned or Degraded changed in status or reason.

    Messages may change at every pass and reasons of Ready on its way up: neither is an Event.
    """
    old = {condition["type"]: condition for condition in before.get("conditions") or []}
    told = []
    for condition in after["conditions"]:
        kind, is_true, reason = condition["type"], condition["status"] == "True", condition["reason"]
        was = old.get(kind, {})
        has_flipped = was.get("status", "False") != condition["status"]
        has_changed = has_flipped or was.get("reason", reason) != reason
        if kind == "Planned" and (has_changed or not was):
            told.append(Transition(reason, condition["message"], is_warning=not is_true))
        elif (kind == "Degraded" and has_changed) or (kind == "Ready" and has_flipped):
            told.append(Transition(reason, condition["message"], is_warning=kind == "Degraded" and is_true))
    # A refused spec shows up in Planned and in Degraded: once is enough.
    return list({transition.message: transition for transition in reversed(told)}.values())[::-1]


@dataclass(frozen=True)
class _Claim:
    status: ConditionStatus
    reason: Reason
    message: str


def _conditions(facts: Facts, groups: list[GroupStatus], findings: list[Finding], now: datetime) -> list[Condition]:
    groups_ready = _groups_ready(facts, groups, findings)
    claims: dict[ConditionType, _Claim] = {
        "Planned": _planned(facts),
        "GroupsReady": groups_ready,
        "Progressing": _progressing(facts, groups, groups_ready),
        "Degraded": _degraded(facts, findings),
        "Ready": _ready(facts, groups, groups_ready),
    }
    old = {condition["type"]: condition for condition in facts.previous.get("conditions") or []}
    return [
        Condition(
            type=kind,
            status=claim.status,
            reason=claim.reason,
            message=claim.message[:MESSAGE_LENGTH],
            observed_generation=facts.generation,
            last_transition_time=_transition_time(old.get(kind, {}), claim, now),
        )
        for kind, claim in claims.items()
    ]


def _transition_time(old: Mapping[str, Any], claim: _Claim, now: datetime) -> datetime:
    if old.get("status") == claim.status and old.get("lastTransitionTime"):
        return datetime.fromisoformat(str(old["lastTransitionTime"]))
    return now.astimezone(UTC)


def _planned(facts: Facts) -> _Claim:
    if facts.refused is not None:
        return _Claim("False", facts.refused.reason, facts.refused.message)
    assert facts.target is not None
    layout = facts.target.layout
    ranks = f"{layout.ranks} rank{'s' if layout.ranks > 1 else ''}"
    pods = f"{layout.pods_per_group} pod{'s' if layout.pods_per_group > 1 else ''}"
    message = f"a group is {pods} with {ranks}: experts over {layout.expert}, attention over {layout.tensor}"
    return _Claim("True", "LayoutFound", message)


def _groups_ready(facts: Facts, groups: list[GroupStatus], findings: list[Finding]) -> _Claim:
    num_ready = sum(group.ready for group in groups)
    if facts.has_nothing:
        return _never_accepted(facts)
    if not groups:
        return _Claim("True", "ScaledToZero", "no group is wanted")
    if num_ready == len(groups):
        return _Claim("True", "AllGroupsReady", f"{num_ready}/{len(groups)} groups are ready")
    finding = worst(findings)
    others = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    message = f"{num_ready}/{len(groups)} groups are ready; {finding.group}: {finding.message}{others}"
    return _Claim("False", finding.reason, message)


def _progressing(facts: Facts, groups: list[GroupStatus], groups_ready: _Claim) -> _Claim:
    if facts.rollout is not None and facts.rollout.outdated:
        left = ", ".join(facts.rollout.outdated)
        return _Claim("True", "RollingOut", f"to be moved to revision {_revision(facts)}: {left}")
    if facts.rollout is not None and facts.rollout.surplus:
        return _Claim("True", "ScalingDown", f"draining: {', '.join(facts.rollout.surplus)}")
    if facts.has_nothing:
        return _never_accepted(facts)
    is_up = groups_ready.status == "True"
    lacking = next(iter(facts.blocked), None) if is_up else _write_clients_lack(facts, groups)
    if lacking is not None:
        waits = lacking.reason == "GroupsPending"
        return _Claim("True" if waits else "False", lacking.reason, lacking.message)
    if is_up:
        return _Claim("False", "Settled", "nothing is to be done")
    is_moving = groups_ready.reason in ("GroupsPending", "GroupsStarting", "GroupsNotReady")
    return _Claim("True" if is_moving else "False", groups_ready.reason, groups_ready.message)


def _degraded(facts: Facts, findings: list[Finding]) -> _Claim:
    lasting = [blocked for blocked in facts.blocked if blocked.reason != "GroupsPending"]
    if lasting:
        return _Claim("True", lasting[0].reason, lasting[0].message)
    if facts.refused is not None:
        reason: Reason = facts.refused.reason if facts.has_nothing else "EditRefused"
        return _Claim("True", reason, facts.refused.message)
    bad = [finding for finding in findings if finding.is_bad]
    if bad:
        return _Claim("True", worst(bad).reason, f"{worst(bad).group}: {worst(bad).message}")
    return _Claim("False", "Healthy", "nothing is wrong")


def _write_clients_lack(facts: Facts, groups: list[GroupStatus]) -> Blocked | None:
    """Return what could not be written and keeps clients from groups, or a group that is down from coming up."""
    needed = {facts.name}
    down = {group.name for group in groups if not group.ready}
    if down:
        needed |= {*down, names.rendezvous_service(facts.name), names.service_account(facts.name)}
        needed |= {pod.name for group in facts.observed.groups.values() if group.name in down for pod in group.pods}
    return next((blocked for blocked in facts.blocked if blocked.name in needed), None)


def _ready(facts: Facts, groups: list[GroupStatus], groups_ready: _Claim) -> _Claim:
    if facts.has_nothing:
        return _never_accepted(facts)
    lacking = _write_clients_lack(facts, groups)
    if lacking is not None:
        return _Claim("False", lacking.reason, lacking.message)
    if groups_ready.reason == "ScaledToZero":
        return _Claim("False", "ScaledToZero", "no group is wanted: spec.replicas is 0")
    if groups_ready.status == "True" and facts.refused is not None:
        of = " on the last accepted spec; the newest" if facts.target is not None else "; the newest spec"
        return _Claim("True", "EditRefused", f"{groups_ready.message}{of} was refused: {facts.refused.message}")
    return groups_ready


def _never_accepted(facts: Facts) -> _Claim:
    assert facts.refused is not None
    return _Claim("False", facts.refused.reason, facts.refused.message)


def _revision(facts: Facts) -> str:
    return facts.target.revision if facts.target is not None else ""


def _plan_status(target: Target) -> PlanStatus:
    layout, memory = target.layout, target.layout.memory
    return PlanStatus(
        tensor=layout.tensor,
        expert=layout.expert,
        ranks_per_pod=layout.ranks_per_pod,
        pods_per_group=layout.pods_per_group,
        gpus_per_group=layout.gpus_per_group,
        parameters=memory.parameters if memory else None,
        weight_bytes_per_rank=memory.weight_bytes_per_rank if memory else None,
        kv_bytes_per_token_per_rank=memory.kv_bytes_per_token_per_rank if memory else None,
    )
