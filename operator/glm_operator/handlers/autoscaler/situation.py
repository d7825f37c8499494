"""What the cluster says of a deployment, apart from its metrics: read from the cache alone. Pure."""

from glm_operator import names
from glm_operator.api.spec import InvalidSpec, parse_deployment
from glm_operator.autoscale.decision import Situation
from glm_operator.cluster.metrics.reading import Target
from glm_operator.cluster.workers import management_url
from glm_operator.layout import Floor, Layout, plan
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup, Seen
from glm_operator.rollout import records

_MOVING = ("RollingOut", "RolloutStuck")


def gpus_per_group(body: Manifest) -> int:
    """Return the GPUs of one group as the newest spec has it; of one that is refused, as the status has it."""
    try:
        layout = plan(parse_deployment(body))
    except InvalidSpec:
        layout = None
    if isinstance(layout, Layout):
        return layout.gpus_per_group
    return int(((body.get("status") or {}).get("plan") or {}).get("gpusPerGroup") or 0)


class Floors:
    """The least times of the spec that the groups of one deployment are made from, planned once a spec."""

    def __init__(self) -> None:
        self._of: tuple[str | None, Floor | None] = None, None  # which record, and what came of it

    def of(self, seen: Seen) -> Floor | None:
        """Return the floor of the spec accepted last, refused newer ones or not; None where it is not known."""
        last = records.latest(seen.observed.records)
        name = last.name if last is not None else None
        if self._of[0] != name:
            target = records.restore(seen.body, seen.observed)
            self._of = name, target.layout.floor if target is not None and target.layout is not None else None
        return self._of[1]


def serving(observed: Observed) -> frozenset[str]:
    """Return the names of the groups that serve, and stay."""
    return frozenset(group.name for group in observed.groups.values() if group.is_available and not group.leaving)


def targets(observed: Observed) -> list[Target]:
    """Return every group that has a leading pod with an address, and where its metrics are."""
    serve = serving(observed)
    found = [(group, _address(group)) for group in observed.groups.values()]
    return [
        Target(group.name, management_url(ip, names.METRICS_PATH), group.name in serve)
        for group, ip in found
        if ip is not None
    ]


def _address(group: ObservedGroup) -> str | None:
    leader = group.leader
    return leader.ip if leader is not None else None


def situation(
    seen: Seen, spec_groups: int, gpus: int, namespace_gpus_left: int | None, floor: Floor | None = None
) -> Situation:
    """Return what a decision needs to know of the cluster.

    spec_groups: with our own write that no watch told of yet. gpus: of one group. floor: None where it is not known.
    """
    num_serving = len(serving(seen.observed))
    status = seen.body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    return Situation(
        spec_groups=spec_groups,
        serving=num_serving,
        starting=max(0, spec_groups - num_serving),
        gpus_per_group=gpus,
        namespace_gpus_left=namespace_gpus_left,
        quota_groups=spec_groups if _is_held_by_quota(conditions) else None,
        is_moving=conditions.get("Progressing", {}).get("reason") in _MOVING,
        floor_s={} if floor is None else floor.seconds,
        floor_on="" if floor is None else floor.hardware,
    )


def _is_held_by_quota(conditions: dict[str, dict[str, str]]) -> bool:
    """Tell whether a ResourceQuota refuses a pod of what is wanted already: then no more groups are asked for.

    The pass that misses a pod dry-runs it and reports the answer (reconcile/trial.py), so no right to read quotas is
    needed.
    """
    found = [conditions.get(kind, {}) for kind in ("GroupsReady", "Degraded")]
    return any(each.get("reason") == "WriteDenied" and "exceeded quota" in each.get("message", "") for each in found)


def groups_taken(body: Manifest) -> int:
    """Return how many groups hold hardware, or will: those that are wanted, or those that exist where they are more."""
    wanted = int((body.get("spec") or {}).get("replicas", 1))
    return max(wanted, int((body.get("status") or {}).get("replicas") or 0))
