"""Take the cluster down, whatever state it is in: complete, half started, or what a dead machine left behind.

Every part works from what it finds rather than from what should be there, so running it twice is harmless.
"""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from glm_cluster.cgroups import remove_cgroups
from glm_cluster.containers import Containerd
from glm_cluster.errors import ClusterError
from glm_cluster.mounts import unmount_below
from glm_cluster.network import has_namespace, inhabitants, remove_network
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes, stat_of
from glm_cluster.waiting import wait_for

CONTAINER_LOG_LINKS = Path("/var/log/containers")


def clean_cache(paths: Paths) -> None:
    """Remove the programs and images that outlive clusters. ClusterError while a cluster, or half of one, is there."""
    if paths.state.exists() or has_namespace():
        raise ClusterError("a cluster is up, or half of one, and uses the cache: run `make cluster-down` first")
    unmount_below(paths.buildah_root)
    for path in paths.cached():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def clean_up(paths: Paths) -> None:
    """Remove every process, mount, namespace, route, cgroup and file of the cluster but for the cache."""
    processes = Processes(paths.pids, paths.logs)
    processes.stop("kubelet")  # first, or it would start again what is removed next
    if processes.pid("containerd"):
        with suppress(ClusterError):  # a containerd that is hung or half started; the kills below do without it
            Containerd(paths).remove_containers()
    for name in reversed(processes.names()):
        processes.stop(name)
    kill_inhabitants()
    kill_shims(paths)
    remove_cgroups()
    unmount_below(paths.state, paths.buildah_root)
    remove_network()
    remove_log_links(paths)
    shutil.rmtree(paths.state, ignore_errors=True)
    if paths.state.exists():
        raise ClusterError(f"{paths.state} cannot be removed: something still writes there")


def kill_inhabitants() -> None:
    """Kill what still lives in the cluster's network namespace: its programs, whether or not a pid file names them.

    A file may be missing: of a command that died between a start and its note, or of another state folder.
    """

    def are_gone() -> bool:
        living = [pid for pid in inhabitants() if stat_of(pid)]
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not living

    wait_for("the end of every program in the cluster's network namespace", are_gone, timeout_s=20)


def kill_shims(paths: Paths) -> None:
    """Kill the containers' parents that outlived containerd; they are ours when they answer to our socket."""
    shims = [pid for pid in pids() if is_shim(command_line(pid), paths.containerd_socket)]
    for pid in shims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the end of containerd's shims", lambda: not any(stat_of(pid) for pid in shims), timeout_s=20)


def is_shim(command: list[str], socket: Path) -> bool:
    return bool(command) and Path(command[0]).name.startswith("containerd-shim") and str(socket) in command


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208


def command_line(pid: int) -> list[str]:
    """Return a process' arguments; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def remove_log_links(paths: Paths) -> None:
    """Remove the links that the kubelet makes in a folder it cannot be told to leave alone."""
    if not CONTAINER_LOG_LINKS.is_dir():
        return
    for link in CONTAINER_LOG_LINKS.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(paths.state):
            link.unlink()
