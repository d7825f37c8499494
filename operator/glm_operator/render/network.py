"""The Services and the ServiceAccount of a deployment. Pure."""

from glm_operator import names
from glm_operator.manifest import Manifest
from glm_operator.render.labels import labels, leader_selector


def service(deployment: str, namespace: str, selector: dict[str, str] | None = None) -> Manifest:
    """Return the Service clients talk to: HTTP of the pods that are ready. selector: of a gateway; else rank-0 pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, namespace, deployment),
        "spec": {
            "type": "ClusterIP",
            "selector": selector or leader_selector(deployment),
            "ports": [{"name": "http", "port": names.HTTP_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def groups_service(deployment: str, namespace: str) -> Manifest:
    """Return the Service by which a gateway finds groups: an endpoint a rank-0 pod, ready or not."""
    # Kubernetes leaves out of an EndpointSlice what its pods have no port of that name for.
    ports = (
        (names.HTTP, names.HTTP_PORT),
        (names.HTTPS, names.HTTPS_PORT),
        ("management", names.MANAGEMENT_PORT),
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, namespace, names.groups_service(deployment)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": leader_selector(deployment),
            "ports": [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports],
        },
    }


def rendezvous(deployment: str, namespace: str) -> Manifest:
    """Return the headless Service that names every pod, also before it is ready: ranks must meet to become so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, namespace, names.rendezvous_service(deployment)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: "worker"},
            "ports": [
                {"name": "coordinator", "port": names.COORDINATOR_PORT, "targetPort": "coordinator", "protocol": "TCP"}
            ],
        },
    }


def service_account(deployment: str, namespace: str) -> Manifest:
    """Return the account of the workers. They never talk to the API server, so it gives them no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(deployment, namespace, names.service_account(deployment)),
        "automountServiceAccountToken": False,
    }


def _metadata(deployment: str, namespace: str, name: str) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": labels(deployment, "network")}
