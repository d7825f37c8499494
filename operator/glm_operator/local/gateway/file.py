"""The gateway's file on this machine, and what of a spec means nothing here. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
    "resources": "gateway.resources counts in clusters only",
    "node_selector": "gateway.nodeSelector counts in clusters only",
    "tolerations": "gateway.tolerations counts in clusters only",
}


@dataclass(frozen=True)
class Folders:
    """Where a gateway of this machine finds and keeps things."""

    keys: Path
    usage: Path


def gateway_file(
    deployment: GLMDeployment,
    address: str,
    folders: Folders,
    groups: Mapping[str, Path],
    others: Sequence[GLMDeployment] = (),
) -> bytes:
    """Return the file. groups: by deployment, where its groups are found. others: that are served as well.

    Raises LocalError for a Secret, which is not here, and for a name that two of them have.
    """
    refuse_secrets(deployment)
    all_of_them = [deployment, *others]
    served = [
        Served(served_name(each), each.name, {"file": str(groups[each.name])}, each.spec.slo) for each in all_of_them
    ]
    if twice := {each.name for each in served if [other.name for other in served].count(each.name) > 1}:
        raise LocalError(
            f"gateway.alsoServes of {deployment.name} finds {', '.join(sorted(twice))} twice; "
            "give the deployments different model.servedName"
        )
    places = Places(keys=str(folders.keys), usage=str(folders.usage))
    listens = {"host": address, "port": names.HTTP_PORT, "managementPort": names.MANAGEMENT_PORT}
    told = gateway_config(deployment.spec.front, served, places, listens=listens)
    return json.dumps(told, indent=2).encode()


def fingerprint(file: bytes) -> str:
    """Return what is the same for two files exactly when a gateway can go from one to the other while it runs."""
    facts = GatewayConfig.model_validate_json(file).model_dump(mode="json", include=set(FIXED))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def served_name(deployment: GLMDeployment) -> str:
    """Return what workers serve the model as."""
    model = deployment.spec.model
    return model.served_name or (model.name if model.name != "custom" else PurePosixPath(model.source).name)


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
