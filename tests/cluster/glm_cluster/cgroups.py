"""The cgroup that all pods live under, in every hierarchy of the machine (v1 has several, v2 one)."""

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

from glm_cluster.addresses import CGROUP
from glm_cluster.mounts import Mount, mounts_now
from glm_cluster.waiting import wait_for


def hierarchies(mounts: list[Mount]) -> list[Path]:
    """Return where the cgroup hierarchies are mounted that a container runtime uses.

    On a machine with v1 controllers the empty v2 mount beside them ("hybrid") is not one.
    """
    v1 = [m.point for m in mounts if m.kind == "cgroup"]
    return v1 or [m.point for m in mounts if m.kind == "cgroup2"]


def our_cgroups() -> list[Path]:
    """Return our folder in each hierarchy where it exists, a mount that is there twice only once."""
    everywhere = {m.point for m in mounts_now() if m.kind in ("cgroup", "cgroup2")}
    return sorted(folder for point in everywhere if (folder := point / CGROUP).is_dir())


def create_cgroups() -> None:
    """Make the parent cgroup; the kubelet insists that it exists."""
    for point in hierarchies(mounts_now()):
        (point / CGROUP).mkdir(exist_ok=True)


def pids_in(cgroup: Path) -> set[int]:
    """Return every process in a cgroup and below it."""
    pids: set[int] = set()
    for procs in cgroup.rglob("cgroup.procs"):
        with suppress(OSError):  # a cgroup may go while we look
            pids.update(int(pid) for pid in procs.read_text().split())
    return pids


def is_empty(cgroup: Path) -> bool:
    return not pids_in(cgroup)


def remove_cgroups() -> None:
    """Kill whatever still lives in our cgroups, then remove them."""
    for cgroup in our_cgroups():
        for pid in pids_in(cgroup):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(f"the end of every process in {cgroup}", partial(is_empty, cgroup), timeout_s=20)
        for folder in sorted((p for p in cgroup.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        cgroup.rmdir()
