"""The cgroup that all pods live under, in every hierarchy of the machine (v1 has several, v2 one)."""

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

from glm_cluster.addresses import CGROUP
from glm_cluster.errors import ClusterError
from glm_cluster.mounts import Mount, mounts_now
from glm_cluster.waiting import wait_for

KUBELET_CONTROLLERS = {"cpu", "cpuset", "hugetlb", "memory", "pids"}
"""Those of cgroup version 2 without which, where the machine has them, the kubelet refuses its parent cgroup."""


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
    """Make the parent cgroup; the kubelet insists that it exists, with every controller that it uses."""
    for point in hierarchies(mounts_now()):
        for controller in sorted(withheld(point)):
            delegate(point, controller)
        (point / CGROUP).mkdir(exist_ok=True)
        weigh(point / CGROUP, os.cpu_count() or 1)


DEFAULTS = (("cpu.shares", 1024, 262_144), ("cpu.weight", 100, 10_000))
"""Of cgroups version 1 and 2: a file, what a new cgroup has, and the most it can have."""


def weigh(cgroup: Path, num_cpus: int) -> None:
    """Let all pods together have a share of the CPU for each core: by default they have what one process has.

    What else runs on the machine at the same time would starve them. With more, they starve the API server.
    """
    for name, default, most in DEFAULTS:
        file = cgroup / name
        if file.exists():  # in one hierarchy of version 1 only
            file.write_text(str(min(default * num_cpus, most)))


def withheld(root: Path) -> set[str]:
    """Return the controllers that the kubelet uses, the root has, and does not hand on to its children.

    Version 2 only: a child has what its parent's cgroup.subtree_control lists, and systemd lists what its units use.
    """
    available, handed_on = root / "cgroup.controllers", root / "cgroup.subtree_control"
    if not available.exists():
        return set()
    return (KUBELET_CONTROLLERS & {*available.read_text().split()}) - {*handed_on.read_text().split()}


def delegate(root: Path, controller: str) -> None:
    """Let children of the root have a controller; ClusterError where the kernel does not allow it."""
    try:
        (root / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        raise ClusterError(
            f"the cgroup {root} cannot hand controller {controller} on to pods ({error.strerror}): a container's own "
            "cgroup namespace does not allow it while processes live in its root; use the machine itself, or a "
            "container with the machine's cgroup namespace"
        ) from error


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
