"""Every name the operator gives or reads: group, objects, labels, annotations, ports, environment.

Pure. What the worker must agree with (environment, ports) is pinned by tests/contract.
"""

import hashlib

GROUP = "glm-operator.io"
VERSION = "v1alpha1"
PLURAL = "glmdeployments"
KIND = "GLMDeployment"
FIELD_MANAGER = "glm-operator"

DEFAULT_WORKER_IMAGE = "glm-worker:0.1.0"
"""Worker image of a GLMDeployment that names none; the chart sets another through the operator's settings."""

DEFAULT_GATEWAY_IMAGE = "glm-operator:0.1.0"
"""Image of gateways, the operator's own; the chart sets it."""

# Labels. The first three are on every object we own; the last two on groups and their pods.
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
NAME_LABEL = "app.kubernetes.io/name"
GROUP_LABEL = f"{GROUP}/group"
REVISION_LABEL = f"{GROUP}/revision"
RECORD_LABEL = f"{GROUP}/accepted-spec"  # on ControllerRevisions that hold an accepted spec
OPERATOR_LABEL = f"{GROUP}/operator"  # on the operator's own pods, by the chart: NetworkPolicies know them by it
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"  # set by the StatefulSet controller since Kubernetes 1.28

REPLICAS_ANNOTATION = f"{GROUP}/replicas"  # on a record: groups wanted; on a gateway's Deployment: pods it was given
LEAVING_ANNOTATION = f"{GROUP}/leaving"  # on a StatefulSet: its group goes, and why
SERVED_ANNOTATION = f"{GROUP}/served"  # on a StatefulSet: the revision at which its group was available, or: earlier
ADOPT_ANNOTATION = f"{GROUP}/adopt"  # on a GLMDeployment: the revision of a newer rendering that somebody adopts
NEWEST_THEN_ANNOTATION = f"{GROUP}/adopt-newest"  # the newest rendering that there was when that was asked for
ADOPTED_ANNOTATION = f"{GROUP}/adopted"  # on a record: its rendering is newer than its spec; "done" once all serve it
SERVING_ANNOTATION = f"{GROUP}/serving"  # on a record: the most groups that served since it was accepted
GUARDED_ANNOTATION = f"{GROUP}/guarded"  # on a record: without access.auth, clients are asked for API keys
PROVEN_ANNOTATION = f"{GROUP}/proven"  # on a record: a group was available at its revision
FRONT_ANNOTATION = f"{GROUP}/front"  # on a gateway's Deployment: what its pods were rendered for
CONFIG_ANNOTATION = f"{GROUP}/config"  # on a gateway's pod: digest of its file; the kubelet brings the file at once
KEYS_ANNOTATION = f"{GROUP}/keys"  # on a gateway's pod: when its keys were changed last; for the same reason
CERTIFICATE_ANNOTATION = f"{GROUP}/certificate"  # on a pod: which certificate is mounted; for the same reason
TRUSTED_ANNOTATION = f"{GROUP}/trusted-since"  # on a Secret of a certificate: since when it trusts whom it trusts
APPLIED_ANNOTATION = f"{GROUP}/applied"  # hash of the manifest as last applied: tells a removed field from a kept one

KEYS_SECRET = "glm-keys"  # noqa: S105 - a name
"""Secret with the API keys of a namespace's deployments, where a spec names none."""

AUTHORITY_SECRET = "glm-authority"  # noqa: S105 - a name
"""Secret with what signs the certificates of a namespace's gateways and workers. No pod mounts it."""

WORKERS_VOLUME = "workers"
"""Volume of a gateway's pod with what it shows to workers: a pod without it can ask no group that speaks TLS."""

WORKER_CONTAINER = "worker"
GATEWAY_CONTAINER = "gateway"

WORKER_ROLE, GATEWAY_ROLE = "worker", "gateway"  # COMPONENT_LABEL of pods

METRICS_PATH = "/metrics"
SLO_PATH = "/slo"
POLICY_PATH = "/policy"
STATE_PATH = "/state"  # of gateways
HTTP, HTTPS = "http", "https"  # ports of pods by what they speak; glm_gateway.groups.slices reads them

SCRAPE_ANNOTATION = "prometheus.io/scrape"
SCRAPE_PORT_ANNOTATION = "prometheus.io/port"
SCRAPE_PATH_ANNOTATION = "prometheus.io/path"

HTTP_PORT = 8000
HTTPS_PORT = 8443  # of the groups' Service only: of groups that speak TLS, at the HTTP port of their pods
MANAGEMENT_PORT = 9090
COORDINATOR_PORT = 29599
RENDEZVOUS_PORT = 29500

MAX_NAME_LENGTH = 40
"""Longest GLMDeployment name: pods, Services and label values derived from it must stay within 63 characters."""


def group_name(deployment: str, index: int) -> str:
    """Name of the StatefulSet of one replica group, and of the group itself."""
    return f"{deployment}-g{index}"


def pod_name(group: str, index: int) -> str:
    return f"{group}-{index}"


def rendezvous_service(deployment: str) -> str:
    """Name of the headless Service that gives every pod of every group a DNS name."""
    return f"{deployment}-ranks"


def service_account(deployment: str) -> str:
    return f"{deployment}-worker"


def groups_service(deployment: str) -> str:
    """Name of the Service of the rank-0 pods: where a gateway finds groups."""
    return f"{deployment}-worker"


def gateway_name(deployment: str) -> str:
    """Name of the gateway's Deployment, account, Role, file and budget of disruptions."""
    return f"{deployment}-gateway"


def workers_certificate(deployment: str) -> str:
    """Name of the Secret with what the workers show to gateways."""
    return f"{deployment}-worker-tls"


def gateway_certificate(deployment: str) -> str:
    """Name of the Secret with what the gateway shows to workers; what it shows to clients is named by its spec."""
    return f"{deployment}-worker-client-tls"


def workers_host(deployment: str, namespace: str) -> str:
    """Return the name in the certificate of a deployment's workers, which gateways insist on."""
    return f"{groups_service(deployment)}.{namespace}.svc"


def record_name(deployment: str, digest: str) -> str:
    """Name of the ControllerRevision that keeps one accepted spec. digest: of all that it keeps."""
    return f"{deployment}-{digest}"


SUFFIXES = ("ranks", "worker", "gateway", "cache", "fetch", "keys", "canary", "tls", "usage", "config")
"""Ends of names of derived objects, those to come included: they could not be reserved later without breaking some."""

RESERVED_SUFFIXES = rf"-(g[0-9]+|{'|'.join(SUFFIXES)})"
"""A deployment may not be named like an object derived from another one: `chat-ranks` beside `chat`."""


def leader_host(deployment: str, group: str, namespace: str) -> str:
    """DNS name of a group's rank-0 pod; without the cluster domain, which the search path adds."""
    return f"{pod_name(group, 0)}.{rendezvous_service(deployment)}.{namespace}.svc"


def management_token(uid: str) -> str:
    """Return what who puts promises or a policy to workers must know: derived, so it needs no Secret and no write.

    Who may read the deployment or its pods knows it; who can merely reach the port does not. uid: the deployment's;
    empty in local mode, where the port is open to this machine only.
    """
    return hashlib.sha256(f"{GROUP}/management/{uid}".encode()).hexdigest()[:32]


def gateway_token(uid: str) -> str:
    """Return what workers know the gateway of a deployment by: it is shown frames, and believed in who asks.

    Derived as management_token is, and for the same reason. uid: as there.
    """
    return hashlib.sha256(f"{GROUP}/gateway/{uid}".encode()).hexdigest()[:32]


def gateway_secret(uid: str) -> str:
    """Return what keys the gateway's hashes of prompts and tenants, in all of its replicas alike."""
    return hashlib.sha256(f"{GROUP}/gateway-secret/{uid}".encode()).hexdigest()
