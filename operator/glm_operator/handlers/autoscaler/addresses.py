"""The gateways that take requests for a deployment: its own, and those of others that also serve it. Pure."""

from collections.abc import Callable, Iterable

from glm_operator.cluster.gateways import DEMAND_PATH, Address
from glm_operator.cluster.workers import management_url
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.gateway import gateway_pods, is_gateway

Name = tuple[str, str]  # namespace, name

_OVER = ("Succeeded", "Failed")
"""Phases of pods in which nothing runs any more."""


def addresses_for(
    name: Name, bodies: Iterable[Manifest], pods: Callable[[str, str], Iterable[Manifest]]
) -> list[Address]:
    """Return every gateway that runs and may be asked for this deployment.

    bodies: deployments of its namespace. pods: those with a deployment's label, by its namespace and name. A pod
    without an address runs nothing yet. A selector that cannot be read selects all: what it may mean is not known.
    """
    here = [*bodies]
    body = next((each for each in here if name_of(each) == name[1]), None)
    if body is None:
        return []
    labels = body["metadata"].get("labels") or {}
    owners = [name[1], *(name_of(each) for each in here if each is not body and _may_serve(each, labels))]
    return [address for owner in owners for address in _addresses(name[0], owner, pods(name[0], owner))]


def _may_serve(other: Manifest, labels: dict[str, str]) -> bool:
    gateway = (other.get("spec") or {}).get("gateway")
    also = gateway.get("alsoServes") if isinstance(gateway, dict) else None
    if not also:
        return False
    selector = also.get("selector") if isinstance(also, dict) else None
    wanted = selector.get("matchLabels") if isinstance(selector, dict) else None
    return not isinstance(wanted, dict) or all(labels.get(key) == value for key, value in wanted.items())


def _addresses(namespace: str, owner: str, pods: Iterable[Manifest]) -> list[Address]:
    running = [pod for pod in pods if is_gateway(pod) and pod.get("status", {}).get("phase") not in _OVER]
    return [
        Address(
            namespace=namespace,
            owner=owner,
            name=pod.name,
            uid=pod.uid,
            url=management_url(pod.ip, DEMAND_PATH),
            is_ready=pod.is_ready,
            is_leaving=pod.is_leaving,
        )
        for pod in gateway_pods(running, [None] * len(running))
        if pod.ip
    ]
