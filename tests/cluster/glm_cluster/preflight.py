"""Say at once, and in a sentence, why this machine cannot run the cluster."""

import ipaddress
import os
import platform
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from glm_cluster import building, images
from glm_cluster.addresses import HOST_LINK, NETWORK, POD_CIDR, SERVICE_CIDR
from glm_cluster.cgroups import withheld
from glm_cluster.commands import run
from glm_cluster.errors import ClusterError
from glm_cluster.packages import require_packages
from glm_cluster.paths import Paths
from glm_cluster.space import require_space

MODULES = ("overlay", "br_netfilter", "veth")
CAPABILITIES = {12: "NET_ADMIN", 21: "SYS_ADMIN", 19: "SYS_PTRACE"}
NEEDED_CONTROLLERS = {"cpu", "memory", "pids"}


def check(paths: Paths, *, with_images: bool = False) -> None:
    """Raise ClusterError with why no cluster can be had here. Changes nothing on the machine.

    with_images: it is to run our images too, so there must be room to build them.
    """
    check_caller()
    require_packages()
    modules_dep = Path("/lib/modules") / os.uname().release / "modules.dep"
    check_kernel(loadable_modules(modules_dep.read_text()) if modules_dep.exists() else ())
    check_addresses()
    building.require_programs(paths)
    need_bytes = building.missing_bytes(paths) + (images.missing_bytes(paths) if with_images else 0)
    require_space(paths.cache, need_bytes, "the first build")


def check_caller() -> None:
    """Raise ClusterError unless this is root on Linux, with root's usual powers."""
    if platform.system() != "Linux":
        raise ClusterError(f"the cluster runs on Linux only, and this is {platform.system()}")
    if os.geteuid() != 0:
        raise ClusterError(
            "the cluster needs root (network namespaces, mounts, containers): run this as root, for example with sudo"
        )
    if lacking := missing_capabilities(Path("/proc/self/status").read_text()):
        raise ClusterError(
            f"root lacks {', '.join(lacking)} here, as in an unprivileged container; use a machine or a privileged one"
        )


def check_kernel(
    loadable: Collection[str] = (), proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> None:
    """Raise ClusterError when the kernel lacks something that is not among the modules it could load."""
    if "overlay" not in {*(proc / "filesystems").read_text().split(), *loadable}:
        raise ClusterError("the kernel has no overlay file system (module overlay), which containers need")
    if "br_netfilter" not in loadable and not (proc / "sys/net/bridge/bridge-nf-call-iptables").exists():
        raise ClusterError("the kernel cannot filter bridged packets (module br_netfilter), which Services need")
    version_2 = cgroup / "cgroup.controllers"
    controllers = cgroup_controllers(
        (proc / "cgroups").read_text(), version_2.read_text() if version_2.exists() else ""
    )
    if lacking := NEEDED_CONTROLLERS - controllers:
        raise ClusterError(f"the kernel has no cgroup controller {', '.join(sorted(lacking))}, which the kubelet needs")
    if is_shut_root(cgroup) and (kept := withheld(cgroup)):
        raise ClusterError(
            f"{cgroup} is the cgroup of a container, processes live in it, and pods would not get its controllers "
            f"{', '.join(sorted(kept))}; use the machine itself, or a container with the machine's cgroup namespace"
        )


def is_shut_root(cgroup: Path) -> bool:
    """Whether this version 2 root is one only to a namespace, and so may not change what its children get."""
    is_inner = (cgroup / "cgroup.type").exists()  # the machine's root has no such file
    return is_inner and bool((cgroup / "cgroup.procs").read_text().strip())


def load_modules() -> None:
    """Load the kernel modules that the cluster needs; raise ClusterError when one is not to be had."""
    for module in MODULES:
        with suppress(ClusterError):  # built in, or not to be had; the check tells
            run("modprobe", module)
    check_kernel()


def check_addresses() -> None:
    """Raise ClusterError when the cluster's addresses are in use on this machine."""
    if taken := conflicting_route(Path("/proc/net/route").read_text()):
        ours = f"{NETWORK}, {POD_CIDR}, {SERVICE_CIDR}"
        raise ClusterError(f"the cluster's addresses ({ours}) overlap with this machine's route {taken}")


def missing_capabilities(status: str) -> list[str]:
    """Return the names of the capabilities that /proc/PID/status lacks among those needed."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]


def cgroup_controllers(proc_cgroups: str, version_2: str) -> set[str]:
    """Return the controllers enabled in /proc/cgroups or listed in the cgroup.controllers of version 2's root.

    Since 6.12 a kernel without version 1 of a controller leaves it out of /proc/cgroups, though version 2 has it.
    """
    rows = [line.split() for line in proc_cgroups.splitlines() if line and not line.startswith("#")]
    return {name for name, _, _, enabled in rows if enabled == "1"} | {*version_2.split()}


def loadable_modules(modules_dep: str) -> set[str]:
    """Return the names of the modules in a modules.dep."""
    files = [line.partition(":")[0] for line in modules_dep.splitlines()]
    return {Path(file).name.partition(".")[0].replace("-", "_") for file in files}


def conflicting_route(routes: str) -> str | None:
    """Return a route of the machine (/proc/net/route) into our address ranges which is not our own."""
    ours = [ipaddress.ip_network(n) for n in (NETWORK, POD_CIDR, SERVICE_CIDR)]
    for line in routes.splitlines()[1:]:
        device, destination, *_, mask, _, _, _ = line.split()
        route = ipaddress.ip_network(f"{address(destination)}/{address(mask)}")
        if device != HOST_LINK and route.prefixlen and any(route.overlaps(n) for n in ours):
            return f"{route} ({'no device' if device == '*' else device})"
    return None


def address(number: str) -> ipaddress.IPv4Address:
    """Return the address that the kernel writes as a hexadecimal number of the machine's byte order."""
    return ipaddress.IPv4Address(int(number, 16).to_bytes(4, sys.byteorder))
