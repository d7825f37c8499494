"""The gateway's file on this machine, and what of a spec means nothing here. Pure."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from glm_gateway.config.changes import FIXED
from glm_gateway.config.config import GatewayConfig
from glm_operator import names
from glm_operator.api.gateway import Gateway
from glm_operator.api.spec import GLMDeployment
from glm_operator.local.errors import LocalError
from glm_operator.render.gateway_config import Places, Served, gateway_config

_OF_CLUSTERS = {
    "replicas": "gateway.replicas counts in clusters only; here there is one process",
    "image": "gateway.image counts in clusters only",
    "canary": "gateway.canary counts in clusters only; here groups are of one revision",
    "resources": "gateway.resources counts in clusters only",
    "node_selector": "gateway.nodeSelector counts in clusters only",
    "tolerations": "gateway.tolerations counts in clusters only",
}


@dataclass(frozen=True)
class Folders:
    """Where a gateway of this machine finds and keeps things."""

    keys: Path
    usage: Path


def gateway_file(deployment: GLMDeployment, address: str, folders: Folders, served: Sequence[Served]) -> bytes:
    """Return the file. served: what is behind it, the deployment's own model first.

    Raises LocalError for a Secret, which is not here, and for what no gateway takes.
    """
    refuse_secrets(deployment)
    places = Places(keys=str(folders.keys), usage=str(folders.usage))
    listens = {"host": address, "port": names.HTTP_PORT, "managementPort": names.MANAGEMENT_PORT}
    try:
        told = gateway_config(deployment.spec.front, served, places, listens=listens)
    except ValidationError as error:  # as of a name that leads to no model
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise LocalError(f"the gateway of {deployment.name}: {where and where + ': '}{said}") from error
    return json.dumps(told, indent=2).encode()


def fingerprint(file: bytes) -> str:
    """Return what is the same for two files exactly when a gateway can go from one to the other while it runs."""
    facts = GatewayConfig.model_validate_json(file).model_dump(mode="json", include=set(FIXED))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def of_clusters_only(deployment: GLMDeployment, usage: Path) -> list[str]:
    """Return what has no meaning here of what the spec says of its gateway, each with what there is instead."""
    gateway, access = deployment.spec.gateway or Gateway(), deployment.spec.access
    given = gateway.model_dump(exclude_defaults=True, exclude_none=True)
    found = [said for field, said in _OF_CLUSTERS.items() if field in given]
    if access is not None and access.keys_secret_ref is not None:
        found.append("access.keysSecretRef counts in clusters only; here keys are those of `glm keys --local`")
    if gateway.usage is not None and gateway.usage.claim_name is not None:
        found.append(f"gateway.usage.claimName counts in clusters only; here usage is kept in {usage}")
    return found


def asks_for_keys(deployment: GLMDeployment) -> bool:
    """Whether callers are known by keys of the folder."""
    access = deployment.spec.access
    return deployment.spec.front.is_wanted and (access is None or access.auth in (None, "APIKeys"))


def refuse_secrets(deployment: GLMDeployment) -> None:
    """Raise LocalError for what is in a Secret."""
    gateway = deployment.spec.gateway or Gateway()
    named = {
        "gateway.tlsSecretRef": gateway.tls_secret_ref is not None,
        "gateway.store.passwordSecretRef": gateway.store is not None and gateway.store.password_secret_ref is not None,
        **{
            f"gateway.upstreams[{each.name}].keySecretRef": each.key_secret_ref is not None
            for each in gateway.upstreams
        },
    }
    if found := [name for name, is_there in named.items() if is_there]:
        verb = "name Secrets" if len(found) > 1 else "names a Secret"
        raise LocalError(f"{', '.join(found)} {verb}, which only a cluster has; leave it out on this machine")
