"""What a status is made of: what a pass saw, decided, did, and could not do. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, get_args

from glm_operator import names
from glm_operator.api.policy import Policy
from glm_operator.api.reasons import REASONS, Reason
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.status import ConditionStatus
from glm_operator.api.trouble import Trouble
from glm_operator.observe.gateway_state import GatewayState
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.rollout.front import FrontPlan
from glm_operator.rollout.steps import Decision, stuck
from glm_operator.rollout.target import Target
from glm_operator.status.groups import why_not_ready
from glm_operator.status.measured import Measured


@dataclass(frozen=True)
class Facts:
    """Everything a status is made of."""

    name: str
    namespace: str
    generation: int
    now: datetime
    target: Target | None  # the last accepted spec; None: there never was one
    refused: Trouble | None  # why the newest spec is not the target
    decision: Decision | None
    observed: Observed  # as the pass leaves it
    reports: Mapping[str, GroupReport] = field(default_factory=dict)
    blocked: tuple[Trouble, ...] = ()  # what could not be written
    adoption_waits: str = ""  # for what the adoption of a newer rendering waits
    previous: Mapping[str, Any] = field(default_factory=dict)  # the status as it is now
    slo: Slo | None = None  # of the newest spec; None: it cannot be read
    scaling: Scaling | None = None  # of the newest spec; None: a person scales, or it cannot be read
    slo_fault: Trouble | None = None  # why spec.slo cannot be read
    scaling_fault: Trouble | None = None
    is_measured: bool = False  # whether the autoscaler looks at it
    measured: Measured | None = None  # what it saw; None: not yet, since the operator began
    promises_refused: Mapping[str, str] = field(default_factory=dict)  # by group: what its worker answered to them
    policy: Policy | None = None  # of the newest spec; None: it cannot be read
    policy_fault: Trouble | None = None  # why spec.reasoning or spec.access cannot be read
    front: FrontPlan = field(default_factory=FrontPlan)
    gateway: Mapping[str, GatewayState] = field(default_factory=dict)  # by pod: what it says
    cut: Mapping[str, int] = field(default_factory=dict)  # by pod of the gateway, those that go included: requests
    policy_refused: Mapping[str, str] = field(default_factory=dict)  # by group: what its worker answered to it

    @cached_property
    def members(self) -> list[ObservedGroup]:
        """The groups that are wanted, those still to be made included; without a target, those there are."""
        groups = self.observed.groups
        if self.decision is None or self.target is None:
            return [group for group in groups.values() if group.exists]
        who = self.decision.membership
        indices = sorted([*(group.index for group in who.members), *who.newcomers, *who.waiting])
        return [groups.get(index) or _to_be_made(self.target.name, index) for index in indices]

    @cached_property
    def goers(self) -> list[ObservedGroup]:
        """The groups that are not wanted and still drain."""
        wanted = {group.index for group in self.members}
        others = [group for index, group in self.observed.groups.items() if index not in wanted]
        return [group for group in others if (group.exists or group.pods) and not self.observed.is_of_others(group)]

    @cached_property
    def findings(self) -> dict[str, Trouble]:
        """Why members are not ready, by name."""
        found = {group.name: self._finding(group) for group in self.members}
        return {name: finding for name, finding in found.items() if finding is not None}

    def before(self, kind: str) -> Mapping[str, Any]:
        """Return a condition as it was before this pass."""
        found = self.previous.get("conditions") or []
        return next((condition for condition in found if condition["type"] == kind), {})

    def said_before(self, kind: str) -> tuple[ConditionStatus, Reason, str] | None:
        """Return status, reason and message of a condition as they were before this pass; None if there was none.

        None as well for a reason that this version does not know: an operator of another one said it.
        """
        old = self.before(kind)
        if old.get("reason") not in REASONS or old.get("status") not in get_args(ConditionStatus):
            return None
        return old["status"], old["reason"], str(old.get("message", ""))

    def _finding(self, group: ObservedGroup) -> Trouble | None:
        if self.decision is not None and group.index in self.decision.membership.waiting:
            before = [each.name for each in self.members if each.exists and not each.is_scheduled]
            return Trouble(
                group.name, "GroupsPending", f"waits until {', '.join(before) or 'the group before'} is scheduled"
            )
        return why_not_ready(group, self.reports.get(group.name), self.now)

    @property
    def num_ready(self) -> int:
        return sum(group.is_available for group in self.members)

    @property
    def outdated(self) -> list[str]:
        """Names of the members that are to be moved still, also after this pass."""
        if self.target is None:
            return []
        return [group.name for group in self.members if group.exists and group.revision != self.target.revision]

    @cached_property
    def stuck(self) -> ObservedGroup | None:
        """The group at which the rollout stands still."""
        if self.target is None or self.decision is None:
            return None
        return stuck(self.target, self.decision, self.now)

    @property
    def moving(self) -> list[str]:
        """Names of the members that were moved and are still to serve again, and for as long as they must."""
        if self.target is None:
            return []
        unproven = {group.name for group in self.decision.unproven} if self.decision is not None else set()
        return [
            group.name
            for group in self.members
            if group.revision == self.target.revision
            and ((group.served and not group.has_served) or (group.is_available and group.name in unproven))
        ]

    @property
    def has_nothing(self) -> bool:
        """Whether no spec was ever accepted and no group runs, not even of a spec that cannot be read any more."""
        return self.target is None and not self.observed.has_groups


def _to_be_made(deployment: str, index: int) -> ObservedGroup:
    name = names.group_name(deployment, index)
    return ObservedGroup(index=index, name=name, exists=False, revision="", num_pods=0, pods=())
