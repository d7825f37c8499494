"""Disk space: refuse at once what would fill the disk after an hour."""

import shutil
from pathlib import Path

from glm_cluster.errors import ClusterError


def require_space(folder: Path, need_bytes: int, what: str) -> None:
    """Raise ClusterError unless this much is free where the folder is, or will be."""
    free_bytes = shutil.disk_usage(nearest_existing(folder)).free
    if free_bytes < need_bytes:
        raise ClusterError(
            f"{what} needs {need_bytes / 1e9:.0f} GB of disk, and {free_bytes / 1e9:.0f} GB are free in {folder}; "
            "free some (`make cluster-clean` removes all that clusters left there), or set GLM_CACHE_DIR to a folder "
            "on a larger disk"
        )


def nearest_existing(folder: Path) -> Path:
    return next(candidate for candidate in (folder, *folder.parents) if candidate.exists())
