"""Who may open connections to the pods of a deployment: NetworkPolicies. Pure.

Of connections that come in only; a cluster whose network enforces none is as open as before. The kubelet's probes and
`kubectl port-forward` come from the node itself, which no network keeps out. The API server's proxy does not: who reads
metrics through it allows it by the operator's setting management_from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glm_operator import names
from glm_operator.manifest import Manifest
from glm_operator.render.labels import labels

Peer = Mapping[str, Any]
"""As NetworkPolicyPeer of networking.k8s.io/v1."""

OPERATOR = ({names.NAME_LABEL: "glm-operator", names.COMPONENT_LABEL: "operator"}, {names.OPERATOR_LABEL: "true"})
"""Labels of the operator's own pods: the first unless the chart's nameOverride is set, the second always."""


@dataclass(frozen=True)
class Openings:
    """What is let in beside ours. prometheus: labels of its pods, in any namespace. management: more peers."""

    prometheus: Mapping[str, str] = field(default_factory=lambda: {names.NAME_LABEL: "prometheus"})
    management: Sequence[Peer] = ()


def network_policies(
    deployment: str, namespace: str, openings: Openings, *, lets_clients_in: bool = False
) -> list[Manifest]:
    """Return what keeps others out of the workers and of the management ports.

    lets_clients_in: workers answer everybody, because the Service leads to them.
    """
    # Gateways of other deployments of the namespace may serve these groups as well.
    gateways: Peer = {"podSelector": {"matchLabels": _of(names.GATEWAY_ROLE)}}
    workers: Peer = {
        "podSelector": {"matchLabels": {names.DEPLOYMENT_LABEL: deployment, **_of(names.WORKER_ROLE)}},
    }
    watchers: list[Peer] = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(found)}}
        for found in (*OPERATOR, openings.prometheus)
    ]
    watchers += openings.management
    http, management = names.HTTP_PORT, names.MANAGEMENT_PORT
    return [
        _policy(
            deployment,
            namespace,
            names.WORKER_ROLE,
            [
                {"ports": _ports(http)} if lets_clients_in else _from([gateways], http),
                _from([gateways, *watchers], management),
                {"from": [workers]},
            ],
        ),
        _policy(deployment, namespace, names.GATEWAY_ROLE, [{"ports": _ports(http)}, _from(watchers, management)]),
    ]


def without_effect(policy: Manifest) -> Manifest:
    """Return a policy that keeps nobody out: what becomes of one that is not wanted any more."""
    return {**policy, "spec": {**policy["spec"], "ingress": [{}]}}


def _policy(deployment: str, namespace: str, role: str, ingress: list[Manifest]) -> Manifest:
    selector = {names.DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: role}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{deployment}-{role}", "namespace": namespace, "labels": labels(deployment, role)},
        "spec": {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _from(peers: Sequence[Peer], port: int) -> Manifest:
    return {"from": [dict(peer) for peer in peers], "ports": _ports(port)}


def _ports(port: int) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"}]


def _of(role: str) -> dict[str, str]:
    return {names.MANAGED_BY_LABEL: names.FIELD_MANAGER, names.COMPONENT_LABEL: role}
