"""summarize(facts) -> status: what the last pass saw and did, in words people act on. Pure: the time is passed in."""

from collections import Counter
from typing import Any

from glm_operator import names
from glm_operator.api.status import GLMDeploymentStatus, GroupStatus, PlanStatus
from glm_operator.layout import Layout
from glm_operator.render.labels import leader_selector, selector_text
from glm_operator.status.conditions import conditions
from glm_operator.status.cuts import gateway_status
from glm_operator.status.facts import Facts
from glm_operator.status.groups import group_status
from glm_operator.status.scaling import scaling_status
from glm_operator.status.slo import latency_status, slo_status

MAX_LISTED = 100
"""Groups that a status lists. A thousand of them would be too much for one object."""


def summarize(facts: Facts) -> dict[str, Any]:
    """Return the status, as it is written to the API server."""
    wanted = facts.target.replicas if facts.target is not None else len(facts.members)
    previous = {group["name"]: group for group in facts.previous.get("groups") or []}
    groups = [
        group_status(group, facts.reports.get(name), facts.findings.get(name), stays=stays, previous=previous.get(name))
        for found, stays in ((facts.members, True), (facts.goers, False))
        for group in found
        for name in [group.name]
    ]
    listed = _listed(groups)
    num_updated = sum(group.exists for group in facts.members) - len(facts.outdated)
    layout = facts.target.layout if facts.target is not None else None
    status = GLMDeploymentStatus(
        observed_generation=facts.generation,
        replicas=sum(group.exists for group in facts.observed.groups.values()),
        ready_replicas=facts.num_ready,
        ready=f"{facts.num_ready}/{wanted}",
        updated_replicas=num_updated,
        up_to_date=f"{num_updated}/{wanted}",
        gpus=layout.gpus_per_group * wanted if layout is not None else 0,
        selector=selector_text(leader_selector(facts.name)),
        revision=facts.target.revision if facts.target is not None else None,
        newer_revision=facts.target.newer_revision if facts.target is not None else None,
        endpoint=f"http://{facts.name}.{facts.namespace}.svc:{names.HTTP_PORT}/v1",
        plan=_plan_status(layout) if layout is not None else None,
        groups=listed,
        groups_omitted=len(groups) - len(listed) or None,
        group_states=dict(sorted(Counter(group.state for group in groups).items())),
        latency=latency_status(facts),
        slo=slo_status(facts),
        scaling=scaling_status(facts),
        gateway=gateway_status(facts),
        conditions=conditions(facts),
    )
    said = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    # An apply that empties an object leaves null there, which the CRD refuses, and the whole status with it.
    return {field: value for field, value in said.items() if value != {}}


def _listed(groups: list[GroupStatus]) -> list[GroupStatus]:
    """Return the groups to list, in their order: all, or those that are not ready first."""
    if len(groups) <= MAX_LISTED:
        return groups
    chosen = sorted(range(len(groups)), key=lambda place: (groups[place].ready, place))[:MAX_LISTED]
    return [groups[place] for place in sorted(chosen)]


def _plan_status(layout: Layout) -> PlanStatus:
    memory = layout.memory
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
