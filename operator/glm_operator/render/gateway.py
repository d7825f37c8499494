"""The objects of a gateway: its pods, what they may read, its file, and what is mounted for it. Pure."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glm_operator import names
from glm_operator.api.access import Access
from glm_operator.api.front import Front
from glm_operator.api.gateway import Gateway, SecretItem
from glm_operator.api.quantity import canonical
from glm_operator.manifest import Manifest, hash_of, is_contained
from glm_operator.render.gateway_config import Places, Served, gateway_config
from glm_operator.render.labels import labels, scrape_annotations
from glm_operator.render.pod import (
    GRACE_MARGIN_S,
    PERIOD_S,
    READINESS_FAILURES,
    WORKER_UID,
    probe,
    secret_for,
    toleration,
)

FILE = "gateway.json"
FILE_FOLDER = "/etc/glm/gateway"
REQUESTS = {"cpu": "100m", "memory": "192Mi"}
"""Of one pod: what it takes with a few hundred streams."""

TO_WORKERS = "/etc/glm/workers"
"""Folder of the certificate that workers know it by."""

FOLLOW_S = 3
"""How long it takes requests still after it was told to stop, as glm_gateway.main does."""


@dataclass(frozen=True)
class GatewayTarget:
    """What a deployment's gateway is to be. revision: of the groups; a new one makes its pods anew.

    is_known_to_workers: it has a certificate for groups that speak TLS, once there is one. replicas: pods; where
    the spec says no number, those that somebody else wants.
    """

    name: str  # of the deployment
    namespace: str
    uid: str
    front: Front
    served: Sequence[Served]
    image: str
    revision: str
    pull_secrets: Sequence[str] = ()  # those of the groups: its image comes from the same registry
    is_known_to_workers: bool = False
    replicas: int = 1

    @property
    def places(self) -> Places:
        return Places(workers=TO_WORKERS if self.is_known_to_workers else None)

    @property
    def gateway(self) -> Gateway:
        return self.front.gateway or Gateway()

    @property
    def file(self) -> str:
        """The text of its file."""
        return json.dumps(gateway_config(self.front, self.served, self.places), indent=1, sort_keys=True) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of its file: as a gateway tells the one that it has read."""
        return hashlib.sha256(self.file.encode()).hexdigest()


def gateway_objects(target: GatewayTarget, live: Manifest | None = None) -> list[Manifest]:
    """Return all but the Service, in the order to apply. live: the Deployment that is there; it may stay as it is."""
    made = deployment(target, live)
    return [
        _account(target),
        _role(target),
        _binding(target),
        _file(target),
        *([made] if made else []),
        _budget(target),
    ]


def gateway_labels(deployment: str) -> dict[str, str]:
    """Return the labels of a gateway's objects and pods."""
    return labels(deployment, names.GATEWAY_ROLE)


def gateway_selector(deployment: str) -> dict[str, str]:
    """Return the labels that only the pods of a deployment's gateway carry."""
    return {names.DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: names.GATEWAY_ROLE}


def deployment(target: GatewayTarget, live: Manifest | None = None) -> Manifest | None:
    """Return the Deployment; None: the live one stays. Its pods are made anew only for what they cannot read again, or
    with the groups: an operator of another version rolls no gateway. So their template may be the live one's.
    """
    front_digest = hash_of([target.revision, _of_pods(target)])
    annotations = {} if live is None else live["metadata"].get("annotations") or {}
    is_kept = live is not None and annotations.get(names.FRONT_ANNOTATION) == front_digest
    if is_kept and live is not None and live["spec"].get("replicas") == target.replicas:
        return None
    made = _template(target)
    # Where the spec says no number, what is found later may be another one: this is the one that was applied.
    applied = {names.REPLICAS_ANNOTATION: str(target.replicas)} if target.gateway.replicas is None else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_metadata(target), "annotations": {names.FRONT_ANNOTATION: front_digest, **applied}},
        "spec": {
            "replicas": target.replicas,
            "selector": {"matchLabels": gateway_selector(target.name)},
            # A new one serves before an old one goes, and an old one waits for its requests.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": _kept(live, made) if is_kept and live is not None else made,
        },
    }


def _kept(live: Manifest, made: Manifest) -> Manifest:
    """Return the template that stays: as it would be made now, if that is the same, else as it is."""
    there: Manifest = live["spec"]["template"]
    return made if is_contained(made, there) else there


def _template(target: GatewayTarget) -> Manifest:
    gateway = target.gateway
    optional = {
        "imagePullSecrets": [{"name": name} for name in target.pull_secrets],
        "affinity": _near_its_disk(target) if _has_own_disk(target) else {},
        "nodeSelector": dict(gateway.node_selector or {}),
        "tolerations": [toleration(each) for each in gateway.tolerations or []],
    }
    return {
        "metadata": {"labels": gateway_labels(target.name), "annotations": scrape_annotations()},
        "spec": {
            "serviceAccountName": names.gateway_name(target.name),
            "automountServiceAccountToken": True,  # it watches the EndpointSlices of its groups, and reads nothing else
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": FOLLOW_S + gateway.drain_seconds + GRACE_MARGIN_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": WORKER_UID,
                "runAsGroup": WORKER_UID,
                "fsGroup": WORKER_UID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(target)],
            "volumes": [{"name": name, **volume} for name, _, volume in _volumes(target)],
            **{key: value for key, value in optional.items() if value},
        },
    }


def _has_own_disk(target: GatewayTarget) -> bool:
    """Whether a single pod keeps its journal on a claim. Such a claim is often one that one node at a time may have.

    By what the spec says: a number that somebody else changes makes no pod anew.
    """
    usage = target.gateway.usage
    return usage is not None and usage.claim_name is not None and (target.gateway.replicas or 1) == 1


def _near_its_disk(target: GatewayTarget) -> Manifest:
    """Return what brings a new pod to the node of the old one: elsewhere it would wait for a disk that this one has,
    which in turn waits for it.
    """
    selector = {"matchLabels": gateway_selector(target.name)}
    term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    }


def _container(target: GatewayTarget) -> Manifest:
    given = target.gateway.resources
    limits = {key: canonical(value) for key, value in ((given and given.limits) or {}).items()}
    requests = {key: value for key, value in REQUESTS.items() if key not in limits}
    requests |= {key: canonical(value) for key, value in ((given and given.requests) or {}).items()}
    return {
        "name": names.GATEWAY_CONTAINER,
        "image": target.image,
        "imagePullPolicy": "IfNotPresent",
        # The init of the image by name: without one an early SIGTERM is lost.
        "command": ["/usr/bin/tini-static", "--", "glm-gateway"],
        "args": ["--config", f"{FILE_FOLDER}/{FILE}"],
        "env": [
            {"name": "GLM_GATEWAY_TOKEN", "value": names.gateway_token(target.uid)},
            {"name": "GLM_GATEWAY_SECRET", "value": names.gateway_secret(target.uid)},
        ],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            {"name": "management", "containerPort": names.MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "startupProbe": probe("/livez", period_s=PERIOD_S, failures=120),
        "livenessProbe": probe("/livez", period_s=10, failures=6),
        "readinessProbe": probe("/readyz", period_s=PERIOD_S, failures=READINESS_FAILURES),
        "resources": {key: value for key, value in (("requests", requests), ("limits", limits)) if value},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {
                "name": name,
                "mountPath": folder,
                **({"readOnly": True} if "emptyDir" not in volume and name != "usage" else {}),
            }
            for name, folder, volume in _volumes(target)
        ],
    }


def _volumes(target: GatewayTarget) -> list[tuple[str, str, Manifest]]:
    """Return what is mounted: a name, the folder, and from where."""
    gateway, access, places = target.gateway, target.front.access or Access(), target.places
    found: list[tuple[str, str, Manifest]] = [
        ("tmp", "/tmp", {"emptyDir": {}}),  # noqa: S108
        ("config", FILE_FOLDER, {"configMap": {"name": names.gateway_name(target.name)}}),
    ]
    if access.auth in (None, "APIKeys"):
        secret = access.keys_secret_ref.name if access.keys_secret_ref is not None else names.KEYS_SECRET
        found.append(("keys", places.keys, {"secret": {"secretName": secret, "optional": True}}))
    if gateway.tls_secret_ref is not None:
        found.append(("tls", places.tls, {"secret": {"secretName": gateway.tls_secret_ref.name}}))
    if places.workers is not None:
        # Optional: it serves groups that speak plain HTTP without it, and takes it up when it comes.
        certificate = {**secret_for(names.gateway_certificate(target.name)), "optional": True}
        found.append((names.WORKERS_VOLUME, places.workers, {"secret": certificate}))
    with_keys = [(each.name, each.key_secret_ref) for each in gateway.upstreams if each.key_secret_ref is not None]
    if with_keys:
        found.append(("upstreams", places.upstreams, _projected([(item, path) for path, item in with_keys])))
    if gateway.store is not None and gateway.store.password_secret_ref is not None:
        found.append(("store", places.store, _projected([(gateway.store.password_secret_ref, "password")])))
    if gateway.usage is not None:
        claim = gateway.usage.claim_name
        volume: Manifest = {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
        found.append(("usage", places.usage, volume))
    return found


def _projected(items: Sequence[tuple[SecretItem, str]]) -> Manifest:
    sources = [{"secret": {"name": item.name, "items": [{"key": item.key, "path": path}]}} for item, path in items]
    return {"projected": {"sources": sources}}


def _of_pods(target: GatewayTarget) -> list[Any]:
    """Return what of a spec the pods cannot read again: a change of it makes them anew."""
    gateway = target.gateway.model_dump(
        mode="json", include={"image", "resources", "node_selector", "tolerations", "drain_seconds", "tls_secret_ref"}
    )
    near = ["near its disk"] if _has_own_disk(target) else []
    return [gateway, [[name, folder, volume] for name, folder, volume in _volumes(target)], _fixed(target), *near]


def _fixed(target: GatewayTarget) -> Any:
    """Return the parts of the file that a gateway reads only when it starts."""
    config = gateway_config(target.front, target.served, target.places)
    fixed = {key: config.get(key) for key in ("auth", "store", "usage", "audit", "tls")}
    return fixed | {key: config[key] for key in ("workers",) if key in config}


def _account(target: GatewayTarget) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(target),
        "automountServiceAccountToken": False,  # its pods say it themselves
    }


def _role(target: GatewayTarget) -> Manifest:
    rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(target),
        "rules": [rule],
    }


def _binding(target: GatewayTarget) -> Manifest:
    name = names.gateway_name(target.name)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(target),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": target.namespace}],
    }


def _file(target: GatewayTarget) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**_metadata(target), "annotations": {names.CONFIG_ANNOTATION: target.digest}},
        "data": {FILE: target.file},
    }


def _budget(target: GatewayTarget) -> Manifest:
    return disruption_budget(target.name, target.namespace, names.gateway_name(target.name), names.GATEWAY_ROLE)


def disruption_budget(deployment: str, namespace: str, name: str, role: str, *, num_idle: int = 0) -> Manifest:
    """Return a budget: one pod of a role at a time. With a single one the drain of a node goes on all the same.

    num_idle: pods that serve nobody yet, and may never: they would use the budget up, and no drain would end.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(deployment, role)},
        "spec": {
            "maxUnavailable": 1 + num_idle,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",  # what serves nobody keeps no node from its drain
            "selector": {"matchLabels": {names.DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: role}},
        },
    }


def _metadata(target: GatewayTarget) -> Manifest:
    name = names.gateway_name(target.name)
    return {"name": name, "namespace": target.namespace, "labels": gateway_labels(target.name)}
