"""The gateway's file: what a deployment, and those it also serves, say of it. Pure.

What is as by default is left out: a gateway of the version before reads the file as long as nothing new is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glm_gateway.config.config import GatewayConfig
from glm_operator import names
from glm_operator.api.access import Access
from glm_operator.api.duration import to_seconds
from glm_operator.api.front import Front
from glm_operator.api.gateway import Gateway
from glm_operator.api.scaling import Zero
from glm_operator.api.slo import Slo

_MODES = {"APIKeys": "Keys", "OIDC": "JWT", "External": "Judge", "None": "None"}


@dataclass(frozen=True)
class Served:
    """A model behind a gateway. groups: where its groups are found, as the file says it.

    uid: of its deployment, where that is not the gateway's own: its workers know another token.
    revision: the newest one, of the gateway's own deployment; None: nobody goes by it. former: names by which some of
    its groups still serve it. kept: what else the file says of it, to stay as it is; None: that is made anew.
    awaits_groups: whether one may come where none is.
    """

    name: str
    deployment: str
    groups: dict[str, str]
    slo: Slo = field(default_factory=Slo)
    uid: str | None = None
    revision: str | None = None
    former: tuple[str, ...] = ()
    kept: Mapping[str, Any] | None = None
    awaits_groups: bool = True


@dataclass(frozen=True)
class Places:
    """Where the gateway finds what is mounted for it: folders of a pod, or of this machine."""

    keys: str = "/etc/glm/keys"
    tls: str = "/etc/glm/tls"
    upstreams: str = "/etc/glm/upstreams"  # a file each, by the upstream's name
    store: str = "/etc/glm/store"  # the file: password
    usage: str = "/var/lib/glm/usage"
    workers: str | None = None  # by which groups that speak TLS know it; None: there are none


def in_cluster(deployment: str, namespace: str) -> dict[str, str]:
    """Return where the groups of a deployment are found in a cluster."""
    return {"service": names.groups_service(deployment), "namespace": namespace}


def gateway_config(
    front: Front, served: Sequence[Served], places: Places, *, listens: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the file, as JSON has it. served: the deployment's own model first, then others, each name once.

    listens: host, port, managementPort, where they are not a pod's. Raises pydantic's ValidationError for what no
    gateway would take, which is a fault of ours or of names that others took.
    """
    gateway, access = front.gateway or Gateway(), front.access or Access()
    upstreams = [_upstream(each, places) for each in gateway.upstreams]
    told: dict[str, Any] = {
        **(listens or {}),
        "auth": _auth(access, places),
        "models": [_model(each, gateway) for each in served],
        "upstreams": upstreams,
        "names": [each.model_dump(mode="json", by_alias=True, exclude_defaults=True) for each in gateway.names],
        "priorities": [_priority(each) for each in gateway.priorities],
        "overload": _said(gateway.overload),
        "hold": _hold(front),
        "quotas": access.limits.for_gateway() if access.limits is not None else None,
        "store": _store(gateway, places),
        "usage": _usage(gateway, places),
        "audit": {"requests": gateway.audit.requests} if gateway.audit is not None else None,
        "trace": {"enabled": True, **(_said(gateway.trace) or {})} if gateway.trace is not None else None,
        "cors": gateway.cors and gateway.cors.model_dump(mode="json", by_alias=True),
        "tls": {"folder": places.tls} if gateway.tls_secret_ref is not None else None,
        "workers": {"tlsFolder": places.workers} if places.workers is not None else None,
    }
    if gateway.max_continuations != 1:
        told["continuation"] = {"maxTimes": gateway.max_continuations}
    if gateway.drain_seconds != Gateway().drain_seconds:
        told["drainSeconds"] = gateway.drain_seconds
    config = {key: value for key, value in told.items() if value not in (None, [], {})}
    GatewayConfig.model_validate(config)
    return config


def _auth(access: Access, places: Places) -> dict[str, Any]:
    mode = _MODES[access.auth or "APIKeys"]
    if access.oidc is not None:
        return {"mode": mode, "jwt": access.oidc.model_dump(mode="json", by_alias=True, exclude_none=True)}
    if access.external is not None:
        judge = access.external
        times = {"timeoutSeconds": to_seconds(judge.timeout), "cacheSeconds": to_seconds(judge.cache)}
        return {"mode": mode, "judge": {"url": judge.url, **times}}
    return {"mode": mode, "keysFolder": places.keys} if mode == "Keys" else {"mode": mode}


def _model(served: Served, gateway: Gateway) -> dict[str, Any]:
    told: dict[str, Any] = {"name": served.name, "deployment": served.deployment, "groups": served.groups}
    if served.former:
        told["formerNames"] = list(served.former)
    if not served.awaits_groups:
        told["awaitsGroups"] = False
    if served.uid is not None:
        told["token"] = names.gateway_token(served.uid)
    if served.slo.classes:
        told["slo"] = served.slo.for_workers()
    if gateway.canary is not None and served.revision is not None:
        falls = {} if gateway.canary.may_fall else {"mayFall": False}
        told["canary"] = {"revision": served.revision, "weight": gateway.canary.weight, **falls}
    told |= served.kept or {}
    if gateway.overflow is not None:
        after_s = to_seconds(gateway.overflow.after)
        told["overflow"] = {"upstream": gateway.overflow.upstream, "afterSeconds": after_s}
    return told


def _upstream(upstream: Any, places: Places) -> dict[str, Any]:
    told = {"name": upstream.name, "url": upstream.url, "model": upstream.model}
    if upstream.key_secret_ref is not None:
        told["keyFile"] = f"{places.upstreams}/{upstream.name}"
    return told


def _priority(each: Any) -> dict[str, Any]:
    told = {"name": each.name, "priority": each.priority, "keyGroups": each.key_groups}
    return told if each.wait is None else {**told, "promiseSeconds": to_seconds(each.wait)}


def _hold(front: Front) -> dict[str, Any] | None:
    zero = front.scaling.zero if front.scaling is not None else None
    if zero is None or zero == Zero():
        return None
    return {"timeoutSeconds": to_seconds(zero.hold_timeout), "maxHeld": zero.max_held}


def _store(gateway: Gateway, places: Places) -> dict[str, Any] | None:
    store = gateway.store
    if store is None:
        return None
    told = {"url": store.url, "onFailure": store.on_failure}
    return told if store.password_secret_ref is None else {**told, "passwordFile": f"{places.store}/password"}


def _usage(gateway: Gateway, places: Places) -> dict[str, Any] | None:
    usage = gateway.usage
    if usage is None:
        return None
    told: dict[str, Any] = {"folder": f"{places.usage}/journal", "retentionDays": usage.retention_days}
    if usage.export:
        told["export"] = {"folder": f"{places.usage}/export", "formats": sorted(usage.export)}
    return told


def _said(part: Any) -> dict[str, Any] | None:
    return part and (part.model_dump(mode="json", by_alias=True, exclude_defaults=True) or None)
