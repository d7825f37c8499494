from typing import Any

import pytest

from glm_operator import names
from glm_operator.cluster.gateways import DEMAND_PATH
from glm_operator.handlers.autoscaler.addresses import addresses_for
from unit.operator.operator_builders import a_body

CHAT = ("models", "chat")


def a_gateway_pod(name: str = "chat-gateway-a", *, role: str = "gateway", **status: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {names.COMPONENT_LABEL: role}},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [ready], **status},
    }


def found(*bodies: dict[str, Any], labels: dict[str, str] | None = None, **pods: list[dict[str, Any]]) -> list[str]:
    """Return the names of the gateways of chat. pods: by deployment."""
    own = a_body("chat")
    own["metadata"]["labels"] = labels or {}
    return [each.name for each in addresses_for(CHAT, [own, *bodies], lambda _, owner: pods.get(owner, []))]


def also_serving(name: str, gateway: Any) -> dict[str, Any]:
    return a_body(name, gateway=gateway)


def selecting(**labels: str) -> dict[str, Any]:
    return {"alsoServes": {"selector": {"matchLabels": labels}}}


def test_its_own_gateways_are_where_their_pods_are() -> None:
    pods = [a_gateway_pod("a"), a_gateway_pod("b", podIP="fd00::7", conditions=[])]
    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"

    first, second = addresses_for(CHAT, [a_body("chat")], lambda *_: pods)

    assert (first.owner, first.uid, first.url) == ("chat", "uid-a", f"http://10.0.0.7:9090{DEMAND_PATH}")
    assert (first.is_ready, first.is_leaving) == (True, False)
    assert second.url == f"http://[fd00::7]:9090{DEMAND_PATH}"
    assert (second.is_ready, second.is_leaving) == (False, True)


def test_pods_of_groups_pods_without_an_address_and_pods_that_ended_are_no_gateways() -> None:
    pods = [
        a_gateway_pod("worker", role="worker"),
        a_gateway_pod("pending", phase="Pending", podIP=None),
        a_gateway_pod("evicted", phase="Failed"),
        a_gateway_pod("done", phase="Succeeded"),
        a_gateway_pod("runs"),
    ]

    assert found(chat=pods) == ["runs"]


@pytest.mark.parametrize(
    ("gateway", "serves"),
    [
        (selecting(team="a"), True),
        (selecting(team="a", tier="b"), False),
        (selecting(team="b"), False),
        ({"alsoServes": {"selector": "all of them"}}, True),
        ({"alsoServes": "all"}, True),
        ({}, False),
        ("none", False),
        (None, False),
    ],
)
def test_gateways_of_others_count_where_their_selector_takes_it_or_cannot_be_read(gateway: Any, serves: bool) -> None:
    pods = {"chat": [a_gateway_pod("own")], "other": [a_gateway_pod("others")]}

    assert found(also_serving("other", gateway), labels={"team": "a"}, **pods) == [
        "own",
        *(["others"] if serves else []),
    ]


def test_of_a_deployment_that_is_not_known_there_is_none() -> None:
    assert addresses_for(CHAT, [a_body("other")], lambda *_: [a_gateway_pod()]) == []
