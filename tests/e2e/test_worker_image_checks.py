"""The story of one who checks a fine-tune before serving it, in the worker's image: nothing else need be installed."""

import json
from typing import Any

from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import wait_for
from e2e.operator_release import Release

POD = "check-nano"


def test_the_image_checks_the_shipped_model_against_transformers(release: Release) -> None:
    target = release.target
    target.apply(_checker(target.worker_image))

    def phase() -> str:
        return str(target.read("pods", POD, MODEL_NAMESPACE)["status"].get("phase"))

    try:
        wait_for("the end of the check", lambda: phase() in ("Succeeded", "Failed"), timeout_s=180)
        told = target.kubectl("logs", POD, "-n", MODEL_NAMESPACE)
        assert phase() == "Succeeded", told
        said = json.loads(told.splitlines()[-1])
        assert said["same"]
        assert said["num_layers"] == said["num_layers_of_checkpoint"]
        assert said["kernels"].startswith("cpu-"), "the image has the kernels in C"
    finally:
        target.kubectl("delete", "pod", POD, "-n", MODEL_NAMESPACE, "--ignore-not-found")


def _checker(image: str) -> dict[str, Any]:
    """Return a pod that runs the command of docs/check.md, as its namespace allows: not as root, nothing written."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": MODEL_NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "check",
                    "image": image,
                    "args": ["check", "--model", "builtin://glm-nano", "--dtype", "float32", "--json"],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
