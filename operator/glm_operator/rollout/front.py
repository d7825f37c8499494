"""What a deployment's gateway is to be, and where its Service leads. Pure.

The gateway moves no group and waits for none, so it counts also where the rest of a spec is refused. Parts that cannot
be read leave it as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from glm_operator import names
from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.front import Front
from glm_operator.api.reasons import Reason
from glm_operator.api.slo import Slo
from glm_operator.api.spec import ModelSpec
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.observed import Observed
from glm_operator.render.gateway import (
    GatewayTarget,
    disruption_budget,
    gateway_objects,
    gateway_selector,
)
from glm_operator.render.gateway_config import Served, in_cluster
from glm_operator.render.network import groups_service
from glm_operator.render.policies import Openings, network_policies
from glm_operator.rollout import records
from glm_operator.rollout.target import Target


@dataclass(frozen=True)
class House:
    """What the operator was installed with. gateway_image: of gateways whose spec names none.

    openings: of NetworkPolicies; None: there are to be none.
    """

    gateway_image: str = names.DEFAULT_GATEWAY_IMAGE
    openings: Openings | None = field(default_factory=Openings)


@dataclass(frozen=True)
class FrontPlan:
    """selector: of the pods that the Service leads to; None: rank-0 pods. absent: why there is no gateway.

    digest: of the file that each pod should have read. pokes: pods that have an older one. faults: names that could not
    be served.
    """

    selector: dict[str, str] | None = None
    manifests: tuple[Manifest, ...] = ()
    pokes: tuple[GatewayPod, ...] = ()
    digest: str = ""
    replicas: int = 0
    absent: tuple[Reason, str] | None = None
    fault: Trouble | None = None
    unserved: tuple[str, ...] = ()


def front_plan(
    body: Manifest, observed: Observed, target: Target | None, others: Iterable[Manifest], house: House
) -> FrontPlan:
    """Return what there is to be. others: deployments of all namespaces."""
    if target is None:
        return FrontPlan(absent=("InvalidSpec", "no spec was ever accepted"))
    leads_there = _leads_to_gateway(observed, target.name)
    kept = gateway_selector(target.name) if leads_there else None
    front = _front(body)
    if isinstance(front, Trouble):
        return FrontPlan(selector=kept, fault=front)
    if not front.is_wanted:
        gone = _without_pods(observed, target.name)
        return FrontPlan(manifests=gone, absent=("GatewayDisabled", "gateway.enabled is false"))
    if not front.says_auth and not records.is_guarded(observed):
        message = (
            "this deployment is from before there were gateways, and its Service leads to the groups; to get one, say "
            "who may ask: access.auth"
        )
        return FrontPlan(absent=("AuthNotSaid", message))
    served, unserved = _served(body, target, front, others)
    wanted = GatewayTarget(
        name=target.name,
        namespace=target.namespace,
        uid=body["metadata"]["uid"],
        front=front,
        served=served,
        image=(front.gateway.image if front.gateway is not None else None) or house.gateway_image,
        revision=target.revision,
    )
    try:
        objects = gateway_objects(wanted, observed.live.get(("apps/v1", "Deployment", names.gateway_name(target.name))))
    except ValidationError as error:
        return FrontPlan(selector=kept, fault=_fault(error))
    policies = [] if house.openings is None else network_policies(target.name, target.namespace, house.openings)
    is_there = any(pod.is_ready for pod in observed.gateway)
    is_first = ("v1", "Service", target.name) not in observed.live
    groups_budget = disruption_budget(
        target.name, target.namespace, names.groups_service(target.name), names.WORKER_ROLE
    )
    return FrontPlan(
        # Clients are led to it once it answers, and for good. Who never had another address never gets past it.
        selector=gateway_selector(target.name) if leads_there or is_there or is_first else None,
        manifests=(groups_service(target.name, target.namespace), groups_budget, *objects, *policies),
        pokes=tuple(pod for pod in observed.gateway if pod.digest != wanted.digest and not pod.is_leaving),
        digest=wanted.digest,
        replicas=wanted.gateway.replicas,
        unserved=tuple(unserved),
    )


def _front(body: Manifest) -> Front | Trouble:
    spec = body.get("spec") or {}
    parts = {part: spec[part] for part in Front.model_fields if spec.get(part) is not None}
    try:
        return Front.model_validate(as_read_by_the_api_server(parts))
    except ValidationError as error:
        return _fault(error)


def _fault(error: ValidationError) -> Trouble:
    first = error.errors()[0]
    path = ".".join(str(step) for step in ("spec", *first["loc"]))
    return Trouble("gateway", "InvalidSpec", f"{path}: {first['msg'].removeprefix('Value error, ')}")


def _leads_to_gateway(observed: Observed, name: str) -> bool:
    service = observed.live.get(("v1", "Service", name))
    selector = service["spec"].get("selector") if service is not None else None
    return bool(selector == gateway_selector(name))


def _without_pods(observed: Observed, name: str) -> tuple[Manifest, ...]:
    """Return the Deployment of a gateway that is not wanted any more: there, and without pods."""
    live = observed.live.get(("apps/v1", "Deployment", names.gateway_name(name)))
    if live is None:
        return ()
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "labels")}
    spec = {key: live["spec"][key] for key in ("selector", "strategy", "template")}
    return ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {**spec, "replicas": 0}},)


def _served(body: Manifest, target: Target, front: Front, others: Iterable[Manifest]) -> tuple[list[Served], list[str]]:
    """Return the models behind the gateway, and what is wrong with others that were meant."""
    own = _model(target.name, target.namespace, target.spec, _slo(body))
    assert own is not None
    served, unserved = [own], []
    also = front.gateway.also_serves if front.gateway is not None else None
    for other in sorted(others, key=name_of) if also is not None else ():
        metadata = other["metadata"]
        if metadata["namespace"] != target.namespace or name_of(other) == target.name:
            continue
        labels = metadata.get("labels") or {}
        if also is None or any(labels.get(key) != value for key, value in also.selector.match_labels.items()):
            continue
        spec, uid = other.get("spec") or {}, metadata.get("uid", "")
        found = _model(name_of(other), target.namespace, spec, _slo(other), uid)
        if found is None:
            unserved.append(f"{name_of(other)} cannot be read")
        elif (before := next((each for each in served if each.name == found.name), None)) is not None:
            unserved.append(
                f"{found.deployment} serves {found.name} as {before.deployment} does: give it a model.servedName"
            )
        else:
            served.append(found)
    return served, unserved


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
    """Return the deployments whose gateways may serve this one as well: they are looked at when it changes.

    name: namespace and name.
    """
    found = []
    for body in bodies:
        gateway, other = (body.get("spec") or {}).get("gateway"), (body["metadata"]["namespace"], name_of(body))
        if other[0] == name[0] and other != name and isinstance(gateway, dict) and gateway.get("alsoServes"):
            found.append(other)
    return found
