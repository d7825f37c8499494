"""The machine's mounts: which are below our folders, and how to take those away."""

import re
from dataclasses import dataclass
from pathlib import Path

from glm_cluster.commands import run
from glm_cluster.errors import ClusterError


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    kind: str
    options: frozenset[str]  # of the super block: a cgroup v1 hierarchy names its controllers here


def parse_mountinfo(text: str) -> list[Mount]:
    """Return the mounts in the order in which they were made. Format: proc(5), /proc/pid/mountinfo."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        kind, _, *options = right.split()
        mounts.append(Mount(Path(point), kind, frozenset(options[0].split(",") if options else ())))
    return mounts


def mounts_now() -> list[Mount]:
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def mounts_below(mounts: list[Mount], *folders: Path) -> list[Path]:
    """Return the mount points in or at the folders, the last made first: the order in which they can be unmounted."""
    return [m.point for m in reversed(mounts) if any(m.point.is_relative_to(folder) for folder in folders)]


def unmount_below(*folders: Path) -> None:
    """Unmount everything in the folders. What is still busy is detached: its last user takes it away."""
    for point in mounts_below(mounts_now(), *folders):
        try:
            run("umount", point)
        except ClusterError:
            run("umount", "--lazy", point)
