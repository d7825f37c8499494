"""Which models are behind a gateway of this machine: its own, and those of others that it also serves. Pure."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from glm_operator.api.spec import GLMDeployment, InvalidSpec, parse_deployment
from glm_operator.render.gateway_config import Served


def served(
    deployment: GLMDeployment, others: Iterable[Mapping[str, Any]], groups: Callable[[str], Path]
) -> tuple[list[Served], list[str]]:
    """Return them, the own first, and what is wrong with others that are meant.

    others: bodies of what else runs here. groups: by the name of a deployment, the file of its groups.
    """
    found, unserved = [_served(deployment, groups)], []
    for body in sorted(others, key=lambda body: str(body["metadata"]["name"])):
        if not is_meant(deployment, body):
            continue
        name = body["metadata"]["name"]
        try:
            other = _served(parse_deployment(body), groups)
        except InvalidSpec as error:  # of an earlier version
            unserved.append(f"{name} cannot be read: {error}")
            continue
        if before := next((each for each in found if each.name == other.name), None):
            unserved.append(
                f"{name} is not behind {deployment.name}: it serves {other.name}, as {before.deployment} does; "
                "give it a model.servedName"
            )
        else:
            found.append(other)
    return found, unserved


def is_meant(deployment: GLMDeployment, other: Mapping[str, Any]) -> bool:
    """Whether the gateway of a deployment also serves another one. other: its body."""
    also = deployment.spec.gateway.also_serves if deployment.spec.gateway is not None else None
    metadata = other["metadata"]
    if also is None or metadata["name"] == deployment.name:
        return False
    labels = metadata.get("labels") or {}
    is_near = metadata.get("namespace", "default") == deployment.namespace
    return is_near and all(labels.get(key) == value for key, value in also.selector.match_labels.items())


def _served(deployment: GLMDeployment, groups: Callable[[str], Path]) -> Served:
    place = {"file": str(groups(deployment.name)), "namespace": deployment.namespace}
    return Served(deployment.spec.model.served_as, deployment.name, place, deployment.spec.slo)
