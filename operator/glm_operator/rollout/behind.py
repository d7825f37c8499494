"""Which deployments are behind one gateway, and which are to be looked at when one of them changes. Pure.

Of each counts what was accepted, as its records tell: an edit of another deployment that is refused changes nothing
here. As long as that is not known, as while the watches still list, what the gateway's file says of it stays.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.front import Front
from glm_operator.api.gateway import AlsoServes, Gateway
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.spec import ModelSpec
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed
from glm_operator.render.gateway_config import Served, in_cluster
from glm_operator.rollout.canary import newest_revision
from glm_operator.rollout.in_file import models_in_file
from glm_operator.rollout.records import latest
from glm_operator.rollout.target import Target


def _nothing(_: Manifest) -> Observed | None:
    return None


@dataclass(frozen=True)
class Neighbours:
    """The deployments that are known. are_all: False: there may be more of them.

    observed: what exists of one; None: that is not known yet.
    """

    bodies: tuple[Manifest, ...] = ()
    are_all: bool = True
    observed: Callable[[Manifest], Observed | None] = _nothing


def served_by(
    body: Manifest, target: Target, observed: Observed, front: Front, others: Neighbours
) -> tuple[list[Served], list[str]]:
    """Return the models behind the gateway, and what is wrong with others that were meant."""
    own = _model(target.name, target.namespace, target.spec, _slo(body))
    assert own is not None
    own = replace(
        own,
        revision=newest_revision(target, observed),
        former=_former(own.name, observed),
        awaits_groups=_awaits_groups(target.replicas, body),
    )
    served, unserved = [own], []
    gateway = front.gateway or Gateway()
    also = gateway.also_serves
    taken = {each.name for each in gateway.names} | {each.name for each in gateway.upstreams}
    in_file = {str(model["deployment"]): model for model in models_in_file(target.name, observed)[1:]}
    for found, name in _others(also, body, others, in_file) if also is not None else ():
        if found is None:
            unserved.append(name)
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
    return _without_taken(served, taken), unserved


def _others(
    also: AlsoServes, body: Manifest, others: Neighbours, in_file: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[Served | None, str]]:
    """Yield other deployments that are meant, in the order of their names; in place of one, why it is not served."""
    meant = [other for other in others.bodies if _is_meant(also, body, other)]
    known = {
        name_of(other) for other in others.bodies if other["metadata"]["namespace"] == body["metadata"]["namespace"]
    }
    missed = [] if others.are_all else [name for name in in_file if name not in known]
    for name, other in sorted(
        [*((name_of(each), each) for each in meant), *((name, None) for name in missed)], key=_first
    ):
        seen = None if other is None else others.observed(other)
        if other is not None and seen is not None:
            yield _accepted(other, seen)
        elif name in in_file:
            yield _kept(in_file[name]), ""


def _first(each: tuple[str, Manifest | None]) -> str:
    return each[0]


def _accepted(other: Manifest, seen: Observed) -> tuple[Served | None, str]:
    """Return another deployment as it was accepted last, or why it is not served."""
    name, metadata, last = name_of(other), other["metadata"], latest(seen.records)
    if last is None:
        return None, f"{name} was never accepted"
    found = _model(name, metadata["namespace"], last.spec, _slo(other), metadata.get("uid", ""))
    if found is None:
        return None, f"{name} cannot be read"
    replicas = (other.get("spec") or {}).get("replicas", 1)
    return replace(found, former=_former(found.name, seen), awaits_groups=_awaits_groups(replicas, other)), ""


_MADE_ANEW = ("name", "deployment", "groups", "formerNames", "overflow", "canary")


def _awaits_groups(replicas: object, body: Manifest) -> bool:
    """Tell whether a deployment may have a group: it asks for some, or somebody asks for it who scales from zero."""
    if replicas != 0:
        return True
    try:
        scaling = Scaling.model_validate(as_read_by_the_api_server((body.get("spec") or {}).get("scaling")))
    except ValidationError:
        return (body.get("spec") or {}).get("scaling") is not None  # nobody knows who scales
    return scaling.mode == "External" or (scaling.mode == "Active" and scaling.may_be_zero)


def _kept(model: Mapping[str, Any]) -> Served:
    """Return a model as the file has it."""
    return Served(
        model["name"],
        model["deployment"],
        dict(model["groups"]),
        former=tuple(model.get("formerNames") or ()),
        kept={key: model[key] for key in model if key not in _MADE_ANEW},
    )


def _former(name: str, observed: Observed) -> tuple[str, ...]:
    """Return the names by which groups that stay still serve a model that has another name now."""
    running = {group.revision for group in observed.groups.values() if group.exists and not group.leaving}
    found = set()
    for record in observed.records:
        model = _model_spec(record.spec) if record.revision in running else None
        if model is not None:
            found.add(model.served_as)
    return tuple(sorted(found - {name}))


def _without_taken(served: list[Served], taken: set[str]) -> list[Served]:
    """Return the models without former names that mean something else now; what two had the first has."""
    used = taken | {each.name for each in served}
    found = []
    for each in served:
        former = tuple(name for name in each.former if name not in used)
        used.update(former)
        found.append(replace(each, former=former))
    return found


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
    model = _model_spec(spec)
    if model is None:
        return None
    return Served(model.served_as, name, in_cluster(name, namespace), slo, uid)


def _model_spec(spec: Mapping[str, Any]) -> ModelSpec | None:
    try:
        return ModelSpec.model_validate(spec.get("model"))
    except ValidationError:
        return None


def _slo(body: Manifest) -> Slo:
    """Return the promises of a deployment; none where they cannot be read."""
    try:
        return Slo.model_validate(as_read_by_the_api_server((body.get("spec") or {}).get("slo") or {}))
    except ValidationError:
        return Slo()


def gateways_of(name: tuple[str, str], bodies: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Return the other deployments whose gateways serve one; none of one that is gone. name: as for sharers."""
    all_bodies = list(bodies)
    own = next((body for body in all_bodies if _full_name(body) == name), None)
    return [_full_name(body) for body in all_bodies if own is not None and selects(body, own)]


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
