"""`make cluster-nano`: build and push the images, install the chart on this machine's cluster, serve glm-nano."""

import sys
import time
from pathlib import Path

from glm_cluster import Cluster, ClusterError
from glm_cluster.progress import duration, say, step

ROOT = Path(__file__).resolve().parents[1]
OPERATOR_NAMESPACE = "glm-system"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def image_flags(prefix: str, reference: str) -> list[str]:
    """Helm flags that choose an image by its digest."""
    repository, _, digest = reference.partition("@")
    return ["--set", f"{prefix}.repository={repository}", "--set", f"{prefix}.digest={digest}"]


def serve_nano(cluster: Cluster) -> str:
    """Return the address of the Service that answers for nano."""
    images = cluster.push_images()
    flags = [*image_flags("image", images.operator.reference), *image_flags("worker.image", images.worker.reference)]
    with step("helm upgrade --install glm"):
        cluster.helm(
            "upgrade", "--install", "glm", ROOT / "charts/glm-operator", "--namespace", OPERATOR_NAMESPACE,
            "--create-namespace", *flags, "--wait", "--timeout", "5m",
        )  # fmt: skip
        for namespace in (OPERATOR_NAMESPACE, "default"):
            cluster.kubectl("label", "namespace", namespace, RESTRICTED, "--overwrite")
    with step("nano Ready"):
        cluster.kubectl("apply", "-f", ROOT / "examples/nano.yaml")
        cluster.kubectl("wait", "--for=condition=Ready", "glmd/nano", "--timeout=300s", timeout_s=310)
    return str(cluster.get("service", "nano")["spec"]["clusterIP"])


def main() -> int:
    start = time.monotonic()
    try:
        address = serve_nano(Cluster.running())
    except ClusterError as error:
        say(f"cluster-nano: {error}")
        return 1
    say(f"nano serves at http://{address}:8000/v1 after {duration(time.monotonic() - start)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
