"""buildah with a storage of its own in the cache: layers outlive the cluster, and nobody else's are touched."""

import json
from dataclasses import dataclass
from pathlib import Path

from glm_cluster.commands import log_to, run
from glm_cluster.errors import CommandFailed
from glm_cluster.paths import Paths


@dataclass(frozen=True)
class Buildah:
    """One storage of images and containers."""

    paths: Paths

    def __call__(self, *args: str | Path, timeout_s: float = 600.0) -> str:
        return run(*self._command(), *args, timeout_s=timeout_s).strip()

    def logged(self, log: Path, *args: str | Path, cwd: Path | None = None) -> None:
        """Run a long command; what it says is in the log, and its end in the error when it fails."""
        log_to(log, *self._command(), *args, cwd=cwd)

    def label(self, image: str, name: str) -> str | None:
        """Return a label of an image; None when there is no such image or label."""
        try:
            template = '{{index .OCIv1.Config.Labels "' + name + '"}}'
            return self("inspect", "--type", "image", "--format", template, image) or None
        except CommandFailed:
            return None

    def images(self) -> set[str]:
        """Return the names of the images, from the storage's own index: asking buildah would make a storage."""
        index = self.paths.buildah_root / "overlay-images/images.json"
        if not index.exists():
            return set()
        return {name for image in json.loads(index.read_text()) for name in image.get("names") or []}

    def _command(self) -> list[str]:
        storage = {"root": self.paths.buildah_root, "runroot": self.paths.buildah_run, "storage-driver": "overlay"}
        return ["buildah", *(f"--{name}={value}" for name, value in storage.items())]
