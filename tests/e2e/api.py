"""Reads of the API server through one `kubectl proxy`, which works with every kubeconfig.

A kubectl for each look takes 0.1 s, most of it its own start, and half of that of a CPU that the pods need.
"""

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from glm_cluster.errors import CommandFailed

CORE, APPS = "/api/v1", "/apis/apps/v1"
KINDS = {
    "controllerrevisions.apps": (APPS, "ControllerRevision"),
    "deployments": (APPS, "Deployment"),
    "endpointslices": ("/apis/discovery.k8s.io/v1", "EndpointSlice"),
    "events": (CORE, "Event"),
    "glmdeployments": ("/apis/glm-operator.io/v1alpha1", "GLMDeployment"),
    "pods": (CORE, "Pod"),
    "serviceaccounts": (CORE, "ServiceAccount"),
    "services": (CORE, "Service"),
    "statefulsets": (APPS, "StatefulSet"),
}
"""Group and kind of what can be read so, all of it in namespaces."""

TIMEOUT_S = 60.0


def path_of(resource: str, namespace: str, *more: str) -> str:
    """Return the path of a resource's objects, or, with more, of one of them by name and of what it has below."""
    group, _ = KINDS[resource]
    return "/".join([group, "namespaces", namespace, resource.partition(".")[0], *more])


@dataclass(frozen=True)
class Api:
    """What is wrong is CommandFailed, as of kubectl, or an error of httpx."""

    http: httpx.Client

    def text(self, path: str, **parameters: str) -> str:
        return self._get(path, parameters).text

    def read(self, path: str, **parameters: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(path, parameters).json()
        return found

    def items(self, resource: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects that the labels select. In a list of the API server they have no kind: it is added."""
        found = self.read(path_of(resource, namespace), **({"labelSelector": selector} if selector else {}))
        return [{"kind": KINDS[resource][1], **item} for item in found["items"]]

    def _get(self, path: str, parameters: Mapping[str, str]) -> httpx.Response:
        response = self.http.get(path, params=parameters)
        if response.is_error:
            raise CommandFailed(f"GET {path} was answered {response.status_code}: {response.text[:1000]}")
        return response


@contextlib.contextmanager
def proxied(environ: Mapping[str, str]) -> Iterator[Api]:
    """Run a `kubectl proxy` until the block is left."""
    command = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            found = re.search(r" (127\.0\.0\.1:\d+)$", proxy.stdout.readline().strip())
            assert found, "kubectl proxy did not say where it listens"
            with httpx.Client(base_url=f"http://{found[1]}", trust_env=False, timeout=TIMEOUT_S) as http:
                yield Api(http)
        finally:
            proxy.terminate()
