"""Builders of what a status is made of. Every argument has a harmless default."""

from datetime import UTC, datetime
from typing import Any

from glm_operator.api.policy import Policy
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.rollout.front import FrontPlan
from glm_operator.rollout.steps import decide
from glm_operator.status.facts import Facts
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = moving_to(replicas=2)
REFUSED = Trouble("spec", "LayoutRefused", "parallelism.expert 3 does not divide 8")
UNSCHEDULABLE = Trouble("chat-g1-0", "Unschedulable", "pod chat-g1-0: no GPU")


NO_GATEWAY = FrontPlan(absent=("GatewayDisabled", "gateway.enabled is false"))


def facts(*groups: ObservedGroup, **changes: Any) -> Facts:
    """Return facts of a deployment whose two groups serve, unless others are given."""
    whole: dict[str, Any] = {
        "name": "chat",
        "namespace": "models",
        "generation": 7,
        "now": NOW,
        "target": TARGET,
        "refused": None,
        "observed": observed(*(groups or (a_group(0), a_group(1)))),
        "policy": Policy(),
        "front": NO_GATEWAY,
        **changes,
    }
    target = whole["target"]
    decision = decide(target, whole["observed"], whole["now"]) if target is not None else None
    return Facts(**{"decision": decision, **whole})


def a_stuck_group(index: int = 1, trouble: Trouble = UNSCHEDULABLE, **changes: Any) -> ObservedGroup:
    """Return a group whose pod is kept down by something."""
    return a_group(index, pods=(a_pod(f"chat-g{index}", ready=False, trouble=trouble, **changes),))


def a_report(state: str = "starting", **said: Any) -> GroupReport:
    return GroupReport.model_validate({"state": state, **said})


def a_failure(message: str = "no such tensor", *, reason: str = "failed") -> dict[str, Any]:
    cause = {"rank": 1, "pod": 0, "reason": reason, "exit_code": 1, "signal": None, "message": message}
    return {"id": "a-1", "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:09.5Z", "cause": cause}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}


def message(status: dict[str, Any], kind: str = "Ready") -> str:
    return next(str(condition["message"]) for condition in status["conditions"] if condition["type"] == kind)
