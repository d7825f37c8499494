"""What a deployment's gateway is to be, and where its Service leads. Pure.

The gateway moves no group and waits for none, so it counts also where the rest of a spec is refused. Parts that cannot
be read leave it as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from glm_operator import names
from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.front import Front
from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest, is_contained, kind_of, name_of
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.ownership import owned
from glm_operator.render.gateway import (
    GatewayTarget,
    deployment,
    disruption_budget,
    gateway_objects,
    gateway_selector,
)
from glm_operator.render.network import groups_service
from glm_operator.render.policies import Openings, network_policies, without_effect
from glm_operator.rollout import records
from glm_operator.rollout.behind import Neighbours, selects, served_by
from glm_operator.rollout.spoken import serves_others_by_tls, speak_tls, why_it_stays
from glm_operator.rollout.target import Target


@dataclass(frozen=True)
class House:
    """What the operator was installed with. gateway_image: of gateways whose spec names none.

    openings: of NetworkPolicies; None: there are to be none. certificates: gateways and workers know each other by
    certificates that the operator makes.
    """

    gateway_image: str = names.DEFAULT_GATEWAY_IMAGE
    openings: Openings | None = field(default_factory=Openings)
    certificates: bool = False


@dataclass(frozen=True)
class FrontPlan:
    """selector: of the pods that the Service leads to; None: rank-0 pods. absent: why there is no gateway.

    digest: of the file that each pod should have read. pokes: pods that have an older one.
    unserved: of other deployments, what keeps them from being served. canary: who gets the newest revision, while there
    are others; empty: nobody said it. multiplied: each of several pods lets in all of the limits.
    stays: why it is there although it is not wanted, or not as it is.
    needs_certificates: there is who shows some. uncertified: what keeps these from being made or renewed.
    """

    selector: dict[str, str] | None = None
    manifests: tuple[Manifest, ...] = ()
    pokes: tuple[GatewayPod, ...] = ()
    digest: str = ""
    replicas: int = 0
    absent: tuple[Reason, str] | None = None
    fault: Trouble | None = None
    unserved: tuple[str, ...] = ()
    stays: str = ""
    needs_certificates: bool = False
    uncertified: Trouble | None = None
    canary: str = ""
    multiplied: bool = False


def front_plan(
    body: Manifest, observed: Observed, target: Target | None, others: Neighbours, house: House
) -> FrontPlan:
    """Return what there is to be. others: deployments of all namespaces."""
    found, has_tls = _front_plan(body, observed, target, others, house), speak_tls(observed, target)
    return replace(found, needs_certificates=house.certificates and (has_tls or bool(found.digest)))


def renders_tls(body: Manifest, observed: Observed, others: Neighbours, house: House) -> bool:
    """Tell whether groups that are rendered now speak TLS: clients come to a gateway that can ask them, or will.

    One whose pods cannot be made anew, as for a quota, would find no group any more.
    """
    return _is_to_speak_tls(body, observed, house) and _can_ask_by_tls(body, observed, others)


def will_render_tls(body: Manifest, observed: Observed, others: Neighbours, house: House) -> bool:
    """Tell whether groups are rendered with TLS as soon as pods of gateways are made anew."""
    return _is_to_speak_tls(body, observed, house) and not _can_ask_by_tls(body, observed, others)


def _is_to_speak_tls(body: Manifest, observed: Observed, house: House) -> bool:
    name, front = name_of(body), _front(body)
    if not house.certificates or isinstance(front, Trouble) or not front.is_wanted:
        return False
    is_first = ("v1", "Service", name) not in observed.live
    return _is_behind_gateway(observed, name) or (is_first and (front.says_auth or records.is_guarded(observed)))


def _can_ask_by_tls(body: Manifest, observed: Observed, others: Neighbours) -> bool:
    """Tell whether each pod of a gateway that serves these groups has a certificate, as far as that is known."""
    serving = [observed, *(others.observed(other) for other in others.bodies if selects(other, body))]
    pods = [pod for each in serving if each is not None for pod in each.gateway]
    return all(pod.has_certificate for pod in pods if not (pod.is_leaving or pod.has_ended))


def _front_plan(
    body: Manifest, observed: Observed, target: Target | None, others: Neighbours, house: House
) -> FrontPlan:
    name = name_of(body)
    is_guarded, is_behind = records.is_guarded(observed), _is_behind_gateway(observed, name)
    is_first = ("v1", "Service", name) not in observed.live
    # Where nothing can be decided anew, nobody gets past a gateway who did not before.
    kept = gateway_selector(name) if is_behind or (is_first and is_guarded) else None
    if target is None:
        return FrontPlan(selector=kept, absent=("InvalidSpec", "no spec was ever accepted"))
    front = _front(body)
    if isinstance(front, Trouble):
        return FrontPlan(selector=kept, fault=front)
    # Groups that speak TLS refuse clients: till they are moved nobody is led past the gateway.
    has_tls = speak_tls(observed, target)
    if not front.is_wanted and not (has_tls and is_behind):
        gone = _without_gateway(body, observed, target, others, house)
        return FrontPlan(manifests=gone, absent=("GatewayDisabled", "gateway.enabled is false"))
    if not front.says_auth and not is_guarded and not is_behind:
        message = (
            "this deployment is from before there were gateways, and its Service leads to the groups; to get one, say "
            "who may ask: access.auth"
        )
        gone = _without_gateway(body, observed, target, others, house)
        return FrontPlan(manifests=gone, absent=("AuthNotSaid", message))
    live = observed.live.get(("apps/v1", "Deployment", names.gateway_name(target.name)))
    served, unserved = served_by(body, target, observed, front, others)
    image = (front.gateway.image if front.gateway is not None else None) or house.gateway_image
    if live is not None and _image(live) != image:  # it may be of the version before, which reads no field that is new
        served = [replace(each, awaits_groups=True) for each in served]
    wanted = GatewayTarget(
        name=target.name,
        namespace=target.namespace,
        uid=body["metadata"]["uid"],
        front=front,
        served=served,
        image=image,
        revision=target.revision,
        pull_secrets=_pull_secrets(target),
        # Also where none are made any more: groups that speak TLS are served until they are moved.
        replicas=_num_pods(front, live),
        is_known_to_workers=house.certificates or has_tls or serves_others_by_tls(front, live),
    )
    try:
        objects = [*gateway_objects(wanted, live), *_repair(wanted, body, live)]
    except ValidationError as error:
        return FrontPlan(selector=kept, fault=_fault(error, _place_in_spec))
    # A gateway finds no groups by a Service of somebody else.
    has_groups_service = ("v1", "Service", names.groups_service(target.name)) in observed.live
    is_there = has_groups_service and any(pod.is_ready for pod in observed.gateway)
    groups_budget = disruption_budget(
        target.name,
        target.namespace,
        names.groups_service(target.name),
        names.WORKER_ROLE,
        num_idle=sum(group.num_pods for group in observed.groups.values() if _never_served(group)),
    )
    return FrontPlan(
        # Clients are led to it once it answers, and for good. Who never had another address never gets past it.
        selector=gateway_selector(target.name) if is_behind or is_there or is_first else None,
        manifests=(
            groups_service(target.name, target.namespace),
            groups_budget,
            *objects,
            # Workers are closed once the Service was seen to lead past them.
            *_policies(observed, target, house, lets_clients_in=not (is_behind or is_first)),
        ),
        pokes=tuple(pod for pod in observed.gateway if pod.digest != wanted.digest and not pod.is_leaving),
        digest=wanted.digest,
        replicas=wanted.replicas,
        multiplied=_has_limits_of_each(front) and wanted.replicas > 1,
        unserved=tuple(unserved),
        canary=_canary(front, served[0].revision, observed),
        stays=why_it_stays(front, target.name, has_tls=has_tls, are_made=house.certificates),
    )


def _canary(front: Front, newest: str | None, observed: Observed) -> str:
    running = {group.revision for group in observed.groups.values() if group.exists}
    if front.gateway is None or front.gateway.canary is None or len(running) < 2:
        return ""
    return f"{front.gateway.canary.weight} % of the callers get revision {newest}"


def _image(live: Manifest) -> str:
    containers = live["spec"]["template"]["spec"]["containers"]
    return next((str(each.get("image")) for each in containers if each["name"] == names.GATEWAY_CONTAINER), "")


def _num_pods(front: Front, live: Manifest | None) -> int:
    """Return how many pods there are to be: where the spec does not say, as many as an HPA or a person has set."""
    if front.gateway is not None and front.gateway.replicas is not None:
        return front.gateway.replicas
    return max(1, (live or {}).get("spec", {}).get("replicas") or 0)


def _has_limits_of_each(front: Front) -> bool:
    limits = front.access.limits if front.access is not None else None
    has_store = front.gateway is not None and front.gateway.store is not None
    return limits is not None and limits.has_any and not has_store


def _front(body: Manifest) -> Front | Trouble:
    spec = body.get("spec") or {}
    parts = {part: spec[part] for part in Front.model_fields if spec.get(part) is not None}
    try:
        return Front.model_validate(as_read_by_the_api_server(parts))
    except ValidationError as error:
        return _fault(error)


def _repair(wanted: GatewayTarget, body: Manifest, live: Manifest | None) -> list[Manifest]:
    """Return the Deployment, if a hand has changed what this version has made; what another one has made is left."""
    applied = {} if live is None else live["metadata"].get("annotations") or {}
    given = str(applied.get(names.REPLICAS_ANNOTATION, ""))
    made = deployment(replace(wanted, replicas=int(given)) if given.isdecimal() else wanted)
    fresh = deployment(wanted)
    assert made is not None
    assert fresh is not None
    marked = owned(made, body)["metadata"]["annotations"][names.APPLIED_ANNOTATION]
    was_made_so = applied.get(names.APPLIED_ANNOTATION) == marked
    there = {**made, "spec": {**made["spec"], "replicas": wanted.replicas}}
    return [fresh] if was_made_so and not is_contained(there, live) else []


def _never_served(group: ObservedGroup) -> bool:
    """Tell whether a group has pods that count in a budget of disruptions, and was never available."""
    return group.exists and bool(group.pods) and not group.served and not group.is_available


def _pull_secrets(target: Target) -> list[str]:
    """Return the Secrets that images of the groups are pulled with. What is kept may be of another version."""
    engine = target.spec.get("engine")
    found = engine.get("imagePullSecrets") if isinstance(engine, dict) else None
    return [str(each["name"]) for each in found or [] if isinstance(each, dict) and "name" in each]


_Path = tuple[int | str, ...]


def _fault(error: ValidationError, place: Callable[[_Path], _Path] = lambda path: path) -> Trouble:
    """Return the first of what is wrong. place: where in the spec it is, from where it was found."""
    first = error.errors()[0]
    path = ".".join(str(step) for step in ("spec", *place(first["loc"])))
    return Trouble("gateway", "InvalidSpec", f"{path}: {first['msg'].removeprefix('Value error, ')}")


def _place_in_spec(path: _Path) -> _Path:
    """Return where a spec says what the gateway's file has at a place."""
    match path:
        case ("quotas", *rest):
            return ("access", "limits", *rest)
        case ("auth", *_):
            return ("access",)
        case ("hold", *_):
            return ("scaling", "zero")
        case ("models", *_):
            return ("model",)
        case ("priorities", index, "promiseSeconds"):
            return ("gateway", "priorities", index, "wait")
        case _:
            return ("gateway", *path)


def _is_behind_gateway(observed: Observed, name: str) -> bool:
    """Tell whether clients come to the gateway now; where the Service is missing, whether there is one to come to."""
    service = observed.live.get(("v1", "Service", name))
    if service is None:
        live = observed.live.get(("apps/v1", "Deployment", names.gateway_name(name)))
        return live is not None and live["spec"].get("replicas") != 0
    return bool((service["spec"].get("selector") or {}).get(names.COMPONENT_LABEL) == names.GATEWAY_ROLE)


def _without_gateway(
    body: Manifest, observed: Observed, target: Target, others: Neighbours, house: House
) -> tuple[Manifest, ...]:
    """Return what there is to be where no gateway is: nobody is kept from the groups, and gateways of others find them.

    Only what is there already, and what others need.
    """
    is_served = any(selects(other, body) for other in others.bodies)
    policies = [
        each
        for each in _policies(observed, target, house, lets_clients_in=True)
        if (*kind_of(each), name_of(each)) in observed.live
    ]
    service = (groups_service(target.name, target.namespace),) if is_served else ()
    return (*policies, *service, *_without_pods(observed, target.name))


def _policies(observed: Observed, target: Target, house: House, *, lets_clients_in: bool) -> list[Manifest]:
    """Return the NetworkPolicies. Where there are to be none, those that are there let everybody in."""
    openings = house.openings if house.openings is not None else Openings()
    made = network_policies(target.name, target.namespace, openings, lets_clients_in=lets_clients_in)
    if house.openings is not None:
        return made
    return [without_effect(each) for each in made if (*kind_of(each), name_of(each)) in observed.live]


def _without_pods(observed: Observed, name: str) -> tuple[Manifest, ...]:
    """Return the Deployment of a gateway that is not wanted any more: there, and without pods."""
    live = observed.live.get(("apps/v1", "Deployment", names.gateway_name(name)))
    if live is None:
        return ()
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "labels")}
    spec = {key: live["spec"][key] for key in ("selector", "strategy", "template")}
    return ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {**spec, "replicas": 0}},)
