"""The story of one who keeps the weights on a PersistentVolumeClaim, as is done with checkpoints of real size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release

CLAIM, FOLDER = "weights", "models/nano"
VOLUME = f"{MODEL_NAMESPACE}-{CLAIM}"
COPY_NANO = """
import shutil
from glm_worker.models import resolve
shutil.copytree(resolve("builtin://glm-nano"), "/claim/models/nano", copy_function=shutil.copyfile)
"""


@pytest.fixture
def on_claim(release: Release) -> Iterator[Deployed]:
    """A deployment of the model in a folder of a claim that is not there yet."""
    if release.target.cluster is None and not release.target.has_default_storage():
        pytest.skip("this cluster has no default StorageClass, and nobody else would make the claim's volume")
    manifest = nano("on-claim", MODEL_NAMESPACE)
    manifest["spec"]["model"] = {"name": "custom", "source": f"pvc://{CLAIM}/{FOLDER}", "servedName": "glm-nano"}
    release.target.apply(manifest)
    deployed = Deployed(release.target, "on-claim", MODEL_NAMESPACE)
    yield deployed
    deployed.delete()
    for volume in (f"pvc/{CLAIM}", f"pv/{VOLUME}"):
        release.target.kubectl("delete", volume, "-n", MODEL_NAMESPACE, "--ignore-not-found", timeout_s=120)


def test_a_model_on_a_claim_waits_for_it_by_name_and_serves(on_claim: Deployed, tmp_path: Path) -> None:
    def is_told() -> bool:
        ready = on_claim.condition("Ready")
        return ready["reason"] == "Unschedulable" and f'"{CLAIM}"' in ready["message"]

    wait_for("the missing claim in Ready", is_told, timeout_s=60)
    target = on_claim.target
    target.apply(*_volumes(tmp_path if target.cluster is not None else None))
    target.apply(_filler(target.worker_image))
    target.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/fill-claim", "-n", MODEL_NAMESPACE, "--timeout=120s",
        timeout_s=130,
    )  # fmt: skip
    target.kubectl("delete", "pod", "fill-claim", "-n", MODEL_NAMESPACE)
    wait_for("the right answer", on_claim.answers_right, timeout_s=180)


def _volumes(folder: Path | None) -> list[dict[str, Any]]:
    """Return a claim, and for a cluster without a provisioner, whose node is this machine, its volume in a folder."""
    size = {"storage": "1Gi"}
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": MODEL_NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}},
    }
    if folder is None:
        return [claim]
    folder.chmod(0o777)  # a hostPath is mounted with the folder's own permissions
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": size,
            "hostPath": {"path": str(folder), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"name": CLAIM, "namespace": MODEL_NAMESPACE},
        },
    }
    claim["spec"] |= {"storageClassName": "", "volumeName": VOLUME}
    return [volume, claim]


def _filler(image: str) -> dict[str, Any]:
    """Return a pod that copies glm-nano onto the claim, as its namespace allows: not as root."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fill-claim", "namespace": MODEL_NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "fill",
                    "image": image,
                    "command": ["python3", "-c", COPY_NANO],
                    "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }
