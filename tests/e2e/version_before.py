"""A program: the operator as it was before there were gateways. Run with the flags of `glm-operator`."""

from typing import Any

from glm_operator import main
from glm_operator.reconcile import reconciler
from glm_operator.render import pod
from glm_operator.rollout import records
from glm_operator.rollout.front import FrontPlan

environment = pod.environment


def without_token(*args: Any, **options: Any) -> list[dict[str, Any]]:
    return [item for item in environment(*args, **options) if item["name"] != "GLM_GATEWAY_TOKEN"]


if __name__ == "__main__":
    pod.environment = without_token
    records.is_guarded = lambda _: False
    reconciler.front_plan = lambda *_: FrontPlan(absent=("GatewayDisabled", "there are no gateways yet"))  # type: ignore[attr-defined]
    main.main()
