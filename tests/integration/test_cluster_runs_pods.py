"""What the stories on the cluster rely on, each checked for itself: a failure here is the cluster's fault."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from glm_cluster import Cluster, ClusterError
from glm_cluster.addresses import CLUSTER_DOMAIN, GPU_RESOURCE
from glm_cluster.dns import resolve
from glm_cluster.errors import CommandFailed
from glm_cluster.images import Images
from glm_cluster.registry import layers
from glm_cluster.waiting import wait_for

pytestmark = pytest.mark.e2e

NAMESPACE = "cluster-probe"
OPERATOR_IMAGE_LIMIT = 120 * 10**6

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    try:
        return Cluster.running()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> Images:
    return cluster.push_images()


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": label}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    wait_for("the service account", lambda: cluster.get("serviceaccount", "default", "-n", NAMESPACE), timeout_s=60)
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout_s=150)


def pod(name: str, image: str, *command: str, **container: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "hostname": name,
            "subdomain": "probes",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "main", "image": image, "command": command, "securityContext": RESTRICTED, **container}
            ],
        },
    }


def service(name: str, app: str, **spec: object) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": ports, **spec},
    }


def create(cluster: Cluster, namespace: str, *manifests: dict[str, Any]) -> None:
    for manifest in manifests:
        cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))


def wait_ready(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=90s")


def test_a_restricted_pod_serves_through_a_service_and_goes(cluster: Cluster, images: Images, namespace: str) -> None:
    server = ("python3", "-u", "-m", "http.server", "8080", "--directory", "/app")
    create(cluster, namespace, service("front", "web"), service("probes", "web", clusterIP="None"))
    create(cluster, namespace, pod("web", images.operator.reference, *server))
    wait_ready(cluster, namespace, "web")
    name = f"web.probes.{namespace}.svc.{CLUSTER_DOMAIN}"
    ip = cluster.get("pod", "web", "-n", namespace)["status"]["podIP"]
    wait_for("the pod's name", lambda: resolve(name) == [ip], timeout_s=60)

    fetch = "import urllib.request as r; print(r.urlopen('http://front', timeout=20).status)"
    said = wait_for(
        "an answer through the Service",
        lambda: cluster.kubectl("exec", "-n", namespace, "web", "--", "python3", "-c", fetch),
        timeout_s=60,
    )
    assert said.strip() == "200"
    log = ("logs", "-n", namespace, "web")
    wait_for("the answer in the log", lambda: '"GET / HTTP/1.1" 200' in cluster.kubectl(*log), timeout_s=60)

    cluster.kubectl("delete", "pod", "web", "-n", namespace, "--timeout=60s")
    wait_for("the end of the pod's name", lambda: resolve(name) == [], timeout_s=60)


def test_a_privileged_pod_is_refused(cluster: Cluster, images: Images, namespace: str) -> None:
    manifest = pod("root", images.operator.reference, "true", securityContext={"privileged": True})
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted'):
        create(cluster, namespace, manifest)


def test_gpus_are_counted(cluster: Cluster, images: Images, namespace: str) -> None:
    limits = {"limits": {GPU_RESOURCE: str(cluster.node_gpus)}}
    for name in ("first", "second"):
        create(cluster, namespace, pod(name, images.operator.reference, "sleep", "600", resources=limits))
    wait_ready(cluster, namespace, "first")
    selector = ("events", "-n", namespace, "--field-selector", "reason=FailedScheduling,involvedObject.name=second")
    events = wait_for("the refusal of the second pod", lambda: cluster.get(*selector)["items"], timeout_s=60)
    assert f"Insufficient {GPU_RESOURCE}" in events[0]["message"]
    cluster.kubectl("delete", "pod", "first", "second", "-n", namespace, "--timeout=60s")


def test_the_operator_image_is_small(images: Images) -> None:
    ours = layers(images.operator.repository, images.operator.digest)[1:]  # the first is the base
    assert sum(layer.compressed_bytes for layer in ours) <= OPERATOR_IMAGE_LIMIT


def test_a_change_of_our_code_moves_little(images: Images) -> None:
    for image in (images.operator, images.worker):
        code = layers(image.repository, image.digest)[-2:]  # COPY, and the bytecode made from it
        assert sum(layer.compressed_bytes for layer in code) <= 30 * 10**6
