"""How few and how many groups there may be now, and what says so. Pure."""

from dataclasses import dataclass

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.bounds.schedule import open_at
from glm_operator.autoscale.constants import MOST_GROUPS
from glm_operator.autoscale.decision import Limit, Situation


@dataclass(frozen=True)
class Bounds:
    """The bounds at a moment.

    least, most: where spec.replicas must lie; outside of them it is brought back. room: how far it may grow, to least
    as well; what is above it already stays, since a namespace's budget and a quota take no running group away.
    """

    least: int
    most: int
    most_by: Limit
    room: int
    room_by: Limit
    scheduled: tuple[str, ...]  # names of the schedules whose bounds hold

    def up(self, groups: int, current: int) -> tuple[int, Limit | None]:
        """Return how many of the wanted groups may be, and what keeps it from more."""
        ceiling = min(self.most, max(self.room, current))
        if groups <= ceiling:
            return groups, None
        return ceiling, self.most_by if self.most <= max(self.room, current) else self.room_by


def bounds_at(scaling: Scaling, situation: Situation, now_s: float) -> Bounds:
    """Return the bounds at a unix time. Where min is not 0, at least one group always stays."""
    opened = open_at(scaling.schedules, now_s)
    least = max((each.min_groups for each in opened if each.min_groups is not None), default=scaling.min_groups)
    highest = max((each.max_groups for each in opened if each.max_groups is not None), default=scaling.max_groups)
    most, most_by = _least_of(
        ("Max", highest), ("GPUBudget", _groups_for(scaling.gpu_budget, situation.gpus_per_group))
    )
    room, room_by = _least_of(
        ("NamespaceGPUBudget", _groups_for(situation.namespace_gpus_left, situation.gpus_per_group)),
        ("ResourceQuota", situation.quota_groups),
        least=0,  # where there is none, no other one makes room for the first
    )
    return Bounds(
        least=min(max(least, 0 if scaling.may_be_zero else 1), most),
        most=most,
        most_by=most_by,
        room=room,
        room_by=room_by,
        scheduled=tuple(each.name for each in opened),
    )


def _groups_for(gpus: int | None, gpus_per_group: int) -> int | None:
    return None if gpus is None or gpus_per_group <= 0 else gpus // gpus_per_group


def _least_of(first: tuple[Limit, int | None], second: tuple[Limit, int | None], least: int = 1) -> tuple[int, Limit]:
    """Return the smaller of two limits, `least` at least, and its name. None: no limit."""
    limits = [(MOST_GROUPS if groups is None else max(groups, least), name) for name, groups in (first, second)]
    return min(limits, key=lambda each: each[0])
