"""The cluster that the stories run on: ours (`make cluster`), or any other one by E2E_KUBECONFIG.

CONTRIBUTING.md says what another cluster needs. There, Services are reached through `kubectl port-forward`; on ours by
their ClusterIP, as a client would.
"""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from e2e.api import KINDS, Api, path_of, proxied
from glm_cluster import Cluster
from glm_cluster.addresses import GPU_RESOURCE
from glm_cluster.commands import run
from glm_cluster.given import given_cluster

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts/glm-operator"
CRD = "glmdeployments.glm-operator.io"


@dataclass(frozen=True)
class Target:
    """kubectl and helm on the cluster, and the images that it can pull."""

    environ: Mapping[str, str]
    operator_image: str
    worker_image: str
    cluster: Cluster | None  # ours; None: a given one
    api: Api
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def kubectl(self, *args: str | Path, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Return what kubectl prints; CommandFailed has what it said when it failed."""
        return run("kubectl", *args, stdin=stdin, env=self.environ, timeout_s=timeout_s)

    def helm(self, *args: str | Path, timeout_s: float = 300.0) -> str:
        return run("helm", *args, env=self.environ, timeout_s=timeout_s)

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return found

    def read(self, resource: str, name: str, namespace: str) -> dict[str, Any]:
        """Return an object of a kind that is looked at often (api.KINDS)."""
        return self.api.read(path_of(resource, namespace, name))

    def items(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind, or of several with commas between, that the labels select."""
        if set(kind.split(",")) <= KINDS.keys():
            return [item for each in kind.split(",") for item in self.api.items(each, namespace, selector)]
        found: list[dict[str, Any]] = self.get(kind, "-n", namespace, *(["-l", selector] if selector else []))["items"]
        return found

    def apply(self, *manifests: Mapping[str, Any]) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def image_values(self) -> list[str]:
        """Return the helm flags that choose the images under test."""
        flags = []
        for prefix, reference in (("image", self.operator_image), ("worker.image", self.worker_image)):
            repository, _, digest = reference.partition("@")
            if digest:
                flags += ["--set", f"{prefix}.repository={repository}", "--set", f"{prefix}.digest={digest}"]
            else:
                repository, _, tag = reference.rpartition(":")
                flags += ["--set", f"{prefix}.repository={repository}", "--set", f"{prefix}.tag={tag}"]
        return flags

    def found(self) -> tuple[list[str], list[str], list[str]]:
        """Return the cluster's namespaces, the releases of our chart, and the GLMDeployments, as NAMESPACE/NAME."""
        namespaces = [each["metadata"]["name"] for each in self.get("namespaces")["items"]]
        releases = [
            f"{each['namespace']}/{each['name']}"
            for each in json.loads(self.helm("list", "--all-namespaces", "--output", "json"))
            if re.fullmatch(rf"{CHART.name}-\d.*", each["chart"])
        ]
        has_crd = self.kubectl("get", "crd", CRD, "--ignore-not-found", "--output", "name").strip()
        bodies = [each["metadata"] for each in self.get("glmd", "--all-namespaces")["items"]] if has_crd else []
        return namespaces, releases, [f"{each['namespace']}/{each['name']}" for each in bodies]

    def num_gpus(self) -> int:
        """Return how many GPUs the scheduler may give away, on all nodes together."""
        return sum(int(node["status"]["allocatable"].get(GPU_RESOURCE, 0)) for node in self.get("nodes")["items"])

    def has_default_storage(self) -> bool:
        """Whether a claim that names no StorageClass gets a volume."""
        classes = self.get("storageclasses")["items"]
        key = "storageclass.kubernetes.io/is-default-class"
        return any(each["metadata"].get("annotations", {}).get(key) == "true" for each in classes)

    @contextlib.contextmanager
    def base_url(self, service: str, namespace: str) -> Iterator[str]:
        """Yield the base URL of the OpenAI API behind a Service."""
        if self.cluster is not None:
            spec = self.read("services", service, namespace)["spec"]
            yield f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}/v1"
            return
        command = ["kubectl", "port-forward", "-n", namespace, f"service/{service}", ":8000"]
        with subprocess.Popen(command, env=dict(self.environ), stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                found = re.search(r":(\d+) ->", forward.stdout.readline())
                assert found, "kubectl port-forward did not say which port it listens on"
                yield f"http://127.0.0.1:{found[1]}/v1"
            finally:
                forward.terminate()


@contextlib.contextmanager
def found_target() -> Iterator[Target]:
    """Yield the cluster that the environment names, else ours with images built from this checkout."""
    given = given_cluster(os.environ)
    if given is not None:
        environ = {**os.environ, "KUBECONFIG": str(given.kubeconfig)}
        with proxied(environ) as api:
            yield Target(environ, given.operator_image, given.worker_image, cluster=None, api=api)
        return
    cluster = Cluster.running()
    images = cluster.push_images()
    with proxied(cluster.environment()) as api:
        yield Target(
            environ=cluster.environment(),
            operator_image=images.operator.reference,
            worker_image=images.worker.reference,
            cluster=cluster,
            api=api,
        )
