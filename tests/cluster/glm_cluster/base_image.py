"""The base of our images where no registry of the world can be asked: Debian with Python, made by debootstrap.

It gets the name that the Dockerfile's FROM has, so the Dockerfile is the same here and everywhere.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from glm_cluster.buildah import Buildah
from glm_cluster.commands import log_to, run
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths
from glm_cluster.progress import step

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv", "tini")
PYTHON_LINKS = ("python", "python3")
RECIPE_LABEL = "glm-operator.io/base-recipe"
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


def base_name(dockerfile: str) -> str:
    """Return the default of the Dockerfile's ARG BASE."""
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    if found is None:
        raise ClusterError("the Dockerfile has no line ARG BASE=IMAGE")
    return found[1]


def recipe() -> str:
    """Return what the image is made from as a short digest; another recipe makes another image."""
    return hashlib.sha256(repr((SUITE, PACKAGES, PYTHON_LINKS, NOT_NEEDED)).encode()).hexdigest()[:12]


def ensure_base_image(paths: Paths, name: str) -> None:
    """Make the base image unless the storage has it from the same recipe."""
    buildah = Buildah(paths)
    if buildah.label(name, RECIPE_LABEL) == recipe():
        return
    log = paths.cache / "debootstrap.log"
    with step(f"base image with debootstrap (1 to 3 min, log in {log})"):
        container = buildah("from", "scratch")
        try:
            root = Path(buildah("mount", container))
            options = ("--variant=minbase", f"--include={','.join(PACKAGES)}")
            log_to(log, "debootstrap", *options, SUITE, root, *mirror(), env={**os.environ, "LANG": "C.UTF-8"})
            strip(root)
            buildah("umount", container)
            buildah("config", "--label", f"{RECIPE_LABEL}={recipe()}", "--env", "LANG=C.UTF-8", container)
            buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
            buildah("commit", container, name)
        finally:
            buildah("rm", container)
    log.unlink()


def strip(root: Path) -> None:
    """Remove what no image needs, and put Python where the official image has it."""
    for folder in NOT_NEEDED:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for link in PYTHON_LINKS:
        (root / "usr/local/bin" / link).symlink_to("/usr/bin/python3")


def mirror() -> list[str]:
    """Return the Debian archive that this machine's apt uses, which may be a company's own; none: debootstrap's own."""
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}")
    return targets.split()[:1]
