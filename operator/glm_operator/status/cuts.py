"""How many requests the end of a drain has cut: counted by pods of the gateway, added up over all there were. Pure.

A pod counts from its start. What it has told stays in the sum when it is gone, and a count that fell is of a new start.
"""

from glm_operator.api.status import GatewayPodStatus, GatewayStatus
from glm_operator.status.facts import Facts


def gateway_status(facts: Facts) -> GatewayStatus | None:
    """Return the counts; None while no pod of a gateway has told any, as those of the version before."""
    before = facts.previous.get("gateway") or {}
    total = before.get("cutRequests")
    told = [each for each in before.get("pods") or [] if {"name", "cutRequests"} <= set(each)]  # not as a hand wrote it
    known = {each["name"]: each["cutRequests"] for each in told}
    for pod, now in facts.cut.items():
        last = known.get(pod, 0)
        total = (total or 0) + (now - last if now >= last else now)
        known[pod] = now
    there = {pod.name for pod in facts.observed.gateway}
    counted = [GatewayPodStatus(name=pod, cut_requests=known[pod]) for pod in sorted(known) if pod in there]
    return (
        None
        if total is None
        else GatewayStatus(cut_requests=total, pods=[each for each in counted if each.cut_requests])
    )
