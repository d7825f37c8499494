"""Whether clients are served by the gateway: what the pods, and their roll-out, suffer from is said."""

from dataclasses import replace
from typing import Any

import pytest

from glm_operator.api.trouble import Trouble
from glm_operator.observe.gateway import GatewayPod
from glm_operator.rollout.front import FrontPlan
from glm_operator.status.facts import Facts
from glm_operator.status.gateway import gateway_ready
from unit.operator.operator_builders import a_group, observed
from unit.operator.status_builders import facts

READY = GatewayPod("chat-gateway-old", "u1", "10.0.0.1", is_ready=True, is_leaving=False)
NEW = GatewayPod("chat-gateway-new", "u2", None, is_ready=False, is_leaving=False)
QUOTA = 'pods "chat-gateway-1" is forbidden: exceeded quota: q'


def told(*pods: GatewayPod, **status: Any) -> Facts:
    live = {("apps/v1", "Deployment", "chat-gateway"): {"status": status}}
    seen = replace(observed(a_group(0)), gateway=pods, live=live)
    return facts(observed=seen, front=FrontPlan(selector={"a": "b"}, digest="d", replicas=1))


def test_a_gateway_all_of_whose_pods_are_new_and_ready_serves() -> None:
    assert gateway_ready(told(READY, replicas=1, updatedReplicas=1))[:2] == ("True", "GatewayServes")
    assert gateway_ready(told(READY))[:2] == ("True", "GatewayServes")


def test_new_pods_that_do_not_come_up_are_said_though_old_ones_serve() -> None:
    status, reason, message = gateway_ready(told(READY, NEW, replicas=2, updatedReplicas=1))
    assert (status, reason) == ("False", "GatewayStarting")
    assert "1 of them from before the last change" in message
    assert "kubectl describe pod chat-gateway-new" in message

    overdue = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    status, reason, message = gateway_ready(told(READY, NEW, replicas=2, updatedReplicas=1, conditions=[overdue]))
    assert (status, reason) == ("False", "RolloutStuck")
    assert message.endswith("timed out")

    image = Trouble(NEW.name, "ImagePullFailed", "no such image")
    status, reason, message = gateway_ready(told(READY, replace(NEW, trouble=image), replicas=2, updatedReplicas=1))
    assert (status, reason) == ("False", "ImagePullFailed")
    assert "1 pods from before the last change serve meanwhile" in message


@pytest.mark.parametrize("pods", [(), (READY,)])
def test_pods_that_the_api_server_refuses_are_said_with_its_words(pods: tuple[GatewayPod, ...]) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}
    found = gateway_ready(told(*pods, replicas=len(pods), updatedReplicas=0, conditions=[refused]))
    assert found[:2] == ("False", "WriteDenied")
    assert QUOTA in found[2]
