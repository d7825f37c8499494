"""NetworkPolicies: a small reading of them says who gets in, and who does not."""

from typing import Any

import pytest

from glm_operator.render.policies import Openings, network_policies

OURS = {"app.kubernetes.io/managed-by": "glm-operator"}
GATEWAY = {**OURS, "glm-operator.io/deployment": "chat", "app.kubernetes.io/component": "gateway"}
WORKER = {**OURS, "glm-operator.io/deployment": "chat", "app.kubernetes.io/component": "worker"}
OPERATOR = {"app.kubernetes.io/name": "glm-operator", "app.kubernetes.io/component": "operator"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


def gets_in(source: dict[str, str], target: dict[str, str], port: int, *, same_namespace: bool = True) -> bool:
    """Whether a pod may connect to another one, as NetworkPolicies are read: a pod that one selects is closed."""
    closed = False
    for policy in network_policies("chat", "models", Openings()):
        if not policy["spec"]["podSelector"]["matchLabels"].items() <= target.items():
            continue
        closed = True
        for rule in policy["spec"]["ingress"]:
            ports = [each["port"] for each in rule.get("ports", [])]
            if (not ports or port in ports) and _is_one_of(rule.get("from"), source, same_namespace=same_namespace):
                return True
    return not closed


def _is_one_of(peers: list[dict[str, Any]] | None, source: dict[str, str], *, same_namespace: bool) -> bool:
    return peers is None or any(
        peer["podSelector"]["matchLabels"].items() <= source.items() and ("namespaceSelector" in peer or same_namespace)
        for peer in peers
    )


@pytest.mark.parametrize(
    ("source", "target", "port", "same_namespace", "expected"),
    [
        ({}, GATEWAY, 8000, False, True),
        ({}, WORKER, 8000, True, False),
        ({}, WORKER, 9090, True, False),
        ({}, GATEWAY, 9090, True, False),
        (GATEWAY, WORKER, 8000, True, True),
        (GATEWAY, WORKER, 9090, True, True),
        (GATEWAY, WORKER, 29599, True, False),
        (GATEWAY, WORKER, 8000, False, False),
        (GATEWAY | {"glm-operator.io/deployment": "other"}, WORKER, 8000, True, True),
        (WORKER, WORKER, 29599, True, True),
        (WORKER | {"glm-operator.io/deployment": "other"}, WORKER, 29599, True, False),
        (OPERATOR, WORKER, 9090, False, True),
        (OPERATOR, GATEWAY, 9090, False, True),
        (OPERATOR, WORKER, 8000, False, False),
        (PROMETHEUS, WORKER, 9090, False, True),
        (PROMETHEUS, WORKER, 8000, False, False),
    ],
)
def test_who_gets_in(
    source: dict[str, str], target: dict[str, str], port: int, *, same_namespace: bool, expected: bool
) -> None:
    assert gets_in(source, target, port, same_namespace=same_namespace) is expected


def test_more_peers_may_be_let_to_management_ports() -> None:
    peer = {"ipBlock": {"cidr": "10.0.0.1/32"}}
    for policy in network_policies("chat", "models", Openings(management=[peer])):
        with_peer = [rule for rule in policy["spec"]["ingress"] if peer in rule.get("from", [])]
        assert [[each["port"] for each in rule["ports"]] for rule in with_peer] == [[9090]]
