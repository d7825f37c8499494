"""Which deployments are behind one gateway, and which are to be looked at when one of them changes. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.front import Front
from glm_operator.api.gateway import AlsoServes, Gateway
from glm_operator.api.slo import Slo
from glm_operator.api.spec import ModelSpec
from glm_operator.manifest import Manifest, name_of
from glm_operator.render.gateway_config import Served, in_cluster
from glm_operator.rollout.target import Target


def served_by(
    body: Manifest, target: Target, front: Front, others: Iterable[Manifest], revision: str
) -> tuple[list[Served], list[str]]:
    """Return the models behind the gateway, and what is wrong with others that were meant.

    revision: the newest one of the gateway's own deployment.
    """
    own = _model(target.name, target.namespace, target.spec, _slo(body))
    assert own is not None
    own = replace(own, revision=revision)
    served, unserved = [own], []
    gateway = front.gateway or Gateway()
    also = gateway.also_serves
    taken = {each.name for each in gateway.names} | {each.name for each in gateway.upstreams}
    for other in sorted(others, key=name_of) if also is not None else ():
        metadata = other["metadata"]
        if also is None or not _is_meant(also, body, other):
            continue
        spec, uid = other.get("spec") or {}, metadata.get("uid", "")
        found = _model(name_of(other), target.namespace, spec, _slo(other), uid)
        if found is None:
            unserved.append(f"{name_of(other)} cannot be read")
        elif found.name in taken:
            unserved.append(
                f"{found.deployment} serves {found.name}, which gateway.names or gateway.upstreams means already"
            )
        elif (before := next((each for each in served if each.name == found.name), None)) is not None:
            unserved.append(
                f"{found.deployment} serves {found.name} as {before.deployment} does: give it a model.servedName"
            )
        else:
            served.append(found)
    return served, unserved


def _is_meant(also: AlsoServes, body: Manifest, other: Manifest) -> bool:
    """Tell whether a gateway also serves another deployment than its own. body: of its own."""
    metadata = other["metadata"]
    labels = metadata.get("labels") or {}
    return (
        metadata["namespace"] == body["metadata"]["namespace"]
        and name_of(other) != name_of(body)
        and all(labels.get(key) == value for key, value in also.selector.match_labels.items())
    )


def selects(body: Manifest, other: Manifest) -> bool:
    """Tell whether the gateway of one deployment also serves the other one, as far as it can be read."""
    gateway = (body.get("spec") or {}).get("gateway")
    if not isinstance(gateway, dict) or not gateway.get("alsoServes") or gateway.get("enabled") is False:
        return False
    try:
        also = AlsoServes.model_validate(gateway["alsoServes"])
    except ValidationError:
        return False
    return _is_meant(also, body, other)


def _model(name: str, namespace: str, spec: Mapping[str, Any], slo: Slo, uid: str | None = None) -> Served | None:
    try:
        model = ModelSpec.model_validate(spec.get("model"))
    except ValidationError:
        return None
    return Served(model.served_as, name, in_cluster(name, namespace), slo, uid)


def _slo(body: Manifest) -> Slo:
    """Return the promises of a deployment; none where they cannot be read."""
    try:
        return Slo.model_validate(as_read_by_the_api_server((body.get("spec") or {}).get("slo") or {}))
    except ValidationError:
        return Slo()


def sharers(name: tuple[str, str], bodies: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Return the deployments that are looked at when one changes: whose gateways may serve it, and whom its gateway
    serves as well: gateways find these by a Service of their own.

    name: namespace and name.
    """
    all_bodies = list(bodies)
    own = next((body for body in all_bodies if _full_name(body) == name), None)
    found = []
    for body in all_bodies:
        gateway, other = (body.get("spec") or {}).get("gateway"), _full_name(body)
        if other[0] != name[0] or other == name:
            continue
        may_serve_it = isinstance(gateway, dict) and gateway.get("alsoServes")
        if may_serve_it or (own is not None and selects(own, body)):
            found.append(other)
    return found


def _full_name(body: Manifest) -> tuple[str, str]:
    return body["metadata"]["namespace"], name_of(body)
