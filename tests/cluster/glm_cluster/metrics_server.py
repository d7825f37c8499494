"""metrics-server as a guest: `kubectl top`, and what a HorizontalPodAutoscaler on CPU or memory reads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from glm_cluster.addresses import NODE_IP
from glm_cluster.aggregation import api_service, api_service_name
from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.guests import only_guest
from glm_cluster.kwok import listed
from glm_cluster.lifecycle import await_program
from glm_cluster.locking import locked
from glm_cluster.paths import Paths
from glm_cluster.programs import METRICS_SERVER, Programs

NAME = METRICS_SERVER.name
NAMESPACE = "kube-system"
PORT = 9443
GROUP, VERSION = "metrics.k8s.io", "v1beta1"
RESOLUTION_S = 10
"""The shortest that metrics-server takes."""


def metrics_server_flags(paths: Paths) -> list[str]:
    names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [
        *(f"--{name}={paths.kubeconfig}" for name in names),
        f"--bind-address={NODE_IP}",
        f"--secure-port={PORT}",
        f"--cert-dir={paths.guests}",
        f"--metric-resolution={RESOLUTION_S}s",
        f"--kubelet-request-timeout={RESOLUTION_S // 2}s",  # must be shorter
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-insecure-tls",  # the kubelet made its certificate itself
    ]


def manifests() -> list[dict[str, object]]:
    return api_service(NAME, NAMESPACE, PORT, GROUP, VERSION)


def build_metrics_server(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths, [METRICS_SERVER])


@contextmanager
def metrics_server(cluster: Cluster) -> Iterator[None]:
    """Run metrics-server. It knows a pod when it has seen it twice, so after up to 20 s."""
    build_metrics_server(cluster.paths)
    objects = json.dumps(listed(manifests()))
    with only_guest(cluster.paths, NAME) as processes:
        try:
            processes.start(NAME, Programs(cluster.paths)[NAME], *metrics_server_flags(cluster.paths))
            cluster.kubectl("apply", "-f", "-", stdin=objects)
            await_program(processes, NAME, lambda: is_available(cluster, GROUP, VERSION))
            yield
        finally:
            # First, or the API server answers lists of all kinds with an error.
            cluster.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=objects)


def is_available(cluster: Cluster, group: str, version: str) -> bool:
    """Whether the API server reaches who serves an API; ClusterError with its words when not."""
    name = f"apiservice/{api_service_name(group, version)}"
    cluster.kubectl("wait", "--for=condition=Available", name, "--timeout=1s")
    return True
