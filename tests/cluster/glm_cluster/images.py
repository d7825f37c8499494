"""Build our images from the checkout's Dockerfile and push them to the cluster's registry.

Layers are cached, so a change of our code costs a second: only the layer that holds it is built and pushed.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glm_cluster.addresses import REGISTRY
from glm_cluster.base_image import base_name, ensure_base_image
from glm_cluster.buildah import Buildah
from glm_cluster.paths import CHECKOUT, Paths
from glm_cluster.progress import step
from glm_cluster.space import require_space

TAG = "dev"
STAGES = ("operator", "worker")
KERNELS = "kernels"  # a stage that the worker's copies from: with a name of its own, or pruning would take its layers
COLD_BUILD_BYTES = 25 * 10**9
OUR_CODE = (b"COPY operator/", b"COPY worker/")  # comes after the packages, and takes no room
"""What a first build needs at its peak: the worker's layers lie in the builder, the registry and the node's store."""


@dataclass(frozen=True)
class Image:
    """An image in the cluster's registry."""

    repository: str
    digest: str

    @property
    def reference(self) -> str:
        """By digest: another build is another reference, so pods move to it and nothing stale is used."""
        return f"{REGISTRY}/{self.repository}@{self.digest}"

    @property
    def tagged(self) -> str:
        """By tag, as a person types it: what was pushed last."""
        return f"{REGISTRY}/{self.repository}:{TAG}"


@dataclass(frozen=True)
class Images:
    """Both of our images."""

    operator: Image
    worker: Image


def build_and_push(paths: Paths, checkout: Path = CHECKOUT) -> Images:
    """Build both images and push them; what has not changed takes no time."""
    require_space(paths.cache, missing_bytes(paths, checkout), "a build of the images with these packages")
    dockerfile = checkout / "Dockerfile"
    ensure_base_image(paths, base_name(dockerfile.read_text()))
    for stage in (KERNELS, *STAGES):
        build(paths, stage, checkout)
    Buildah(paths)("rm", "--all")  # of builds that were ended in the middle: they would hold images that nothing needs
    Buildah(paths)("rmi", "--prune")  # what earlier builds left: packages of 5 GB each time that they change
    operator, worker = (push(paths, stage) for stage in STAGES)
    return Images(operator, worker)


def build(paths: Paths, stage: str, checkout: Path) -> None:
    """Build one stage of the Dockerfile; what it prints is in the cache until it has succeeded."""
    log = paths.cache / f"build-{stage}.log"
    first = "" if has_packages(paths, stage, checkout) else first_time(stage, log)
    with step(f"build of the {stage} image{first}"):
        options = ("--isolation=chroot", "--network=host", "--pull-never", "--layers", "--format=oci")
        target = (f"--target={stage}", f"--tag={local_name(stage)}", *certificate_options(os.environ))
        Buildah(paths).logged(log, "bud", *options, *target, "--file", "Dockerfile", checkout, cwd=checkout)
    packages_note(paths, stage).write_text(packages_digest(stage, checkout))
    log.unlink()


def first_time(stage: str, log: Path) -> str:
    """Return what to expect of a build without cached layers."""
    minutes = "about 5 min: PyTorch with its CUDA libraries is 5 GB" if stage == "worker" else "1 min"
    return f" (first time: {minutes}; log in {log})"


def push(paths: Paths, stage: str) -> Image:
    """Push one image and return it with its digest. zstd at its fastest: the wire is a cable inside this machine."""
    digest = paths.state / f"{stage}.digest"
    with step(f"push of the {stage} image"):
        compression = ("--compression-format=zstd", "--compression-level=1")
        options = ("--tls-verify=false", *compression, f"--digestfile={digest}")
        target = f"docker://{REGISTRY}/glm-{stage}:{TAG}"
        Buildah(paths)("push", *options, local_name(stage), target, timeout_s=1800)
    return Image(f"glm-{stage}", digest.read_text().strip())


def local_name(stage: str) -> str:
    return f"localhost/glm-{stage}:{TAG}"


def certificate_options(environ: Mapping[str, str]) -> list[str]:
    """Return how RUN steps get to see the machine's own certificate authorities (a company's proxy, a mirror)."""
    file = Path(environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    if not file.exists():
        return []
    return [f"--volume={file.parent}:{file.parent}:ro", f"--build-arg=SSL_CERT_FILE={file}"]


def missing_bytes(paths: Paths, checkout: Path = CHECKOUT) -> int:
    """Return the disk space that building the images takes: next to none once these very packages are in one."""
    return 0 if has_packages(paths, "worker", checkout) else COLD_BUILD_BYTES


def has_packages(paths: Paths, stage: str, checkout: Path) -> bool:
    """Whether the last image of a stage was built with the packages that the checkout names. Asks nobody but files."""
    note = packages_note(paths, stage)
    is_there = local_name(stage) in Buildah(paths).images() and note.exists()
    return is_there and note.read_text() == packages_digest(stage, checkout)


def packages_digest(stage: str, checkout: Path) -> str:
    """Return what stands for the packages of a stage: its locks and its lines, but for those that copy our code."""
    _, runtime, *stages = (checkout / "Dockerfile").read_bytes().split(b"\nFROM ")
    own = next(each for each in stages if each.split(b"\n", 1)[0].endswith(f" AS {stage}".encode()))
    recipe = b"\n".join(line for line in (runtime + b"\n" + own).splitlines() if not line.startswith(OUR_CODE))
    locks = [(checkout / file).read_bytes() for file in ("locks/uv.txt", f"locks/{stage}.txt")]
    digests = b"".join(hashlib.sha256(part).digest() for part in (recipe, *locks))
    return hashlib.sha256(digests).hexdigest()


def packages_note(paths: Paths, stage: str) -> Path:
    """Return where the digest of the last image's packages is written."""
    return paths.cache / f"packages-{stage}"
