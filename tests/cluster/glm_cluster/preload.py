"""Bring images to the node before anybody waits for a pod that needs them."""

import json
from typing import Protocol

POD, NAMESPACE = "glm-preload", "kube-system"
PATIENCE_S = 900


class Kubectl(Protocol):
    """kubectl on some cluster."""

    def __call__(self, *args: str, stdin: str | None = None, timeout_s: float = 120.0) -> str: ...


def preload(kubectl: Kubectl, references: list[str]) -> None:
    """Let the kubelet pull the images by a pod of them, as it does for every pod; return when it has."""
    pod = ("pod", POD, "-n", NAMESPACE)
    kubectl("delete", *pod, "--ignore-not-found", "--now")
    kubectl("create", "-f", "-", stdin=json.dumps(puller(references)))
    done = ("--for=jsonpath={.status.phase}=Succeeded", f"--timeout={PATIENCE_S}s")
    kubectl("wait", *pod, *done, timeout_s=PATIENCE_S + 30)
    kubectl("delete", *pod, "--now")


def puller(references: list[str]) -> dict[str, object]:
    """Return a pod that needs the images and ends at once."""
    containers = [
        {"name": f"image-{i}", "image": reference, "command": ["true"]} for i, reference in enumerate(references)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": containers},
    }
