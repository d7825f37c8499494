"""The cluster that the stories run on: ours (`make cluster`), or any other one by E2E_KUBECONFIG.

Another cluster needs E2E_OPERATOR_IMAGE and E2E_WORKER_IMAGE, references that its nodes can pull, and kubectl and helm
on PATH. There, Services are reached through `kubectl port-forward`; on ours by their ClusterIP, as a client would.
"""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from glm_cluster import Cluster
from glm_cluster.commands import run

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts/glm-operator"


@dataclass(frozen=True)
class Target:
    """kubectl and helm on the cluster, and the images that it can pull."""

    environ: Mapping[str, str]
    operator_image: str
    worker_image: str
    has_direct_network: bool

    def kubectl(self, *args: str | Path, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Return what kubectl prints; CommandFailed has what it said when it failed."""
        return run("kubectl", *args, stdin=stdin, env=self.environ, timeout_s=timeout_s)

    def helm(self, *args: str | Path, timeout_s: float = 300.0) -> str:
        return run("helm", *args, env=self.environ, timeout_s=timeout_s)

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return found

    def items(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
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

    @contextlib.contextmanager
    def base_url(self, service: str, namespace: str) -> Iterator[str]:
        """Yield the base URL of the OpenAI API behind a Service."""
        if self.has_direct_network:
            spec = self.get("service", service, "-n", namespace)["spec"]
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


def find_target() -> Target:
    """Return the cluster that the environment names, else ours with images built from this checkout."""
    kubeconfig = os.environ.get("E2E_KUBECONFIG")
    if kubeconfig:
        return Target(
            environ={**os.environ, "KUBECONFIG": kubeconfig},
            operator_image=os.environ["E2E_OPERATOR_IMAGE"],
            worker_image=os.environ["E2E_WORKER_IMAGE"],
            has_direct_network=False,
        )
    cluster = Cluster.running()
    images = cluster.push_images()
    return Target(
        environ=cluster.environment(),
        operator_image=images.operator.reference,
        worker_image=images.worker.reference,
        has_direct_network=True,
    )
