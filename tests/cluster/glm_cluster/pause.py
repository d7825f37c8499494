"""The pause image: what holds each pod's namespaces open, from our own few lines of Go."""

from pathlib import Path

from glm_cluster.buildah import Buildah
from glm_cluster.node import pause_image
from glm_cluster.paths import Paths
from glm_cluster.programs import Programs


def pause_archive(paths: Paths) -> Path:
    """Return an OCI archive of the image, which containerd can import."""
    buildah = Buildah(paths)
    archive = paths.state / "pause.tar"
    archive.unlink(missing_ok=True)
    container = buildah("from", "scratch")
    try:
        buildah("copy", container, Programs(paths)["pause"], "/pause")
        buildah("config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
        buildah("commit", container, f"oci-archive:{archive}:{pause_image()}")
    finally:
        buildah("rm", container)
    return archive
