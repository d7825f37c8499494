"""KEDA as a guest: of a ScaledObject its operator makes a HorizontalPodAutoscaler, whose metrics its adapter serves."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_cluster import web
from glm_cluster.addresses import NODE_IP
from glm_cluster.aggregation import api_service
from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.crds import add_crds, remove_crds
from glm_cluster.guests import only_guest
from glm_cluster.kwok import listed
from glm_cluster.lifecycle import await_program
from glm_cluster.locking import locked
from glm_cluster.metrics_server import is_available
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes
from glm_cluster.programs import KEDA, Programs

OPERATOR, ADAPTER = "keda-operator", "keda-adapter"
NAMESPACE = "kube-system"
CRD_GROUPS = ("keda.sh", "eventing.keda.sh")
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
HEALTH_PORT, METRICS_SERVICE_PORT, ADAPTER_PORT, ADAPTER_METRICS_PORT = 9281, 9282, 9283, 9284


def keda_environment(paths: Paths) -> list[str]:
    """Return the variables of both programs, as `env` takes them. In a pod they come with it."""
    return [
        f"KUBECONFIG={paths.kubeconfig}",
        "WATCH_NAMESPACE=",
        f"POD_NAMESPACE={NAMESPACE}",
        f"KEDA_CLUSTER_OBJECT_NAMESPACE={NAMESPACE}",
    ]


def operator_flags(paths: Paths) -> list[str]:
    return [
        "--metrics-bind-address=0",
        f"--health-probe-bind-address={NODE_IP}:{HEALTH_PORT}",
        f"--metrics-service-bind-address={NODE_IP}:{METRICS_SERVICE_PORT}",
        f"--cert-dir={certificates(paths)}",
        "--zap-encoder=console",
    ]


def adapter_flags(paths: Paths) -> list[str]:
    folder = certificates(paths)
    return [
        *(f"--{name}-kubeconfig={paths.kubeconfig}" for name in ("lister", "authentication", "authorization")),
        f"--bind-address={NODE_IP}",
        f"--secure-port={ADAPTER_PORT}",
        f"--metrics-service-address={NODE_IP}:{METRICS_SERVICE_PORT}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder}/tls.crt",
        f"--tls-private-key-file={folder}/tls.key",
        f"--port={ADAPTER_METRICS_PORT}",
    ]


def certificates(paths: Paths) -> Path:
    return paths.guests / "keda-certificates"


def write_certificates(paths: Paths) -> None:
    """Give operator and adapter what each shows the other. etcd's own certificate is good for both ends."""
    certificates(paths).mkdir(parents=True, exist_ok=True)
    etcd = paths.pki / "etcd"
    for source, name in (("ca.crt", "ca.crt"), ("server.crt", "tls.crt"), ("server.key", "tls.key")):
        shutil.copy(etcd / source, certificates(paths) / name)


def manifests() -> list[dict[str, object]]:
    return api_service(ADAPTER, NAMESPACE, ADAPTER_PORT, GROUP, VERSION)


def build_keda(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths, [KEDA])


@contextmanager
def keda(cluster: Cluster) -> Iterator[None]:
    """Run KEDA, with its CRDs; at the end both are gone, and every ScaledObject."""
    build_keda(cluster.paths)
    objects = json.dumps(listed(manifests()))
    with only_guest(cluster.paths, OPERATOR, ADAPTER) as processes:
        write_certificates(cluster.paths)
        try:
            add_crds(cluster, Programs(cluster.paths).manifests(KEDA))
            start(cluster, processes)
            cluster.kubectl("apply", "-f", "-", stdin=objects)
            await_program(processes, ADAPTER, lambda: is_available(cluster, GROUP, VERSION))
            yield
        finally:
            # First, or the API server answers lists of all kinds with an error.
            cluster.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=objects)
            for name in (ADAPTER, OPERATOR):
                processes.stop(name)
            remove_crds(cluster, *CRD_GROUPS)


def start(cluster: Cluster, processes: Processes) -> None:
    folder = Programs(cluster.paths).folder(KEDA)
    environment = ("env", *keda_environment(cluster.paths))
    processes.start(OPERATOR, *environment, folder / "operator", *operator_flags(cluster.paths))
    await_program(processes, OPERATOR, lambda: web.get(f"http://{NODE_IP}:{HEALTH_PORT}/readyz"))
    processes.start(ADAPTER, *environment, folder / "adapter", *adapter_flags(cluster.paths))
