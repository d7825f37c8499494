"""Say at once, and in a sentence, why this machine cannot run the cluster."""

import ipaddress
import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from glm_cluster.addresses import HOST_LINK, NETWORK, POD_CIDR, SERVICE_CIDR
from glm_cluster.commands import run
from glm_cluster.errors import ClusterError

CAPABILITIES = {12: "NET_ADMIN", 21: "SYS_ADMIN", 19: "SYS_PTRACE"}
NEEDED_CONTROLLERS = {"cpu", "memory", "pids"}


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


def check_machine() -> None:
    """Raise ClusterError when the kernel lacks something or the network's addresses are taken."""
    for module in ("overlay", "br_netfilter", "veth"):
        with suppress(ClusterError):  # built in, or not to be had; the checks below tell
            run("modprobe", module)
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        raise ClusterError("the kernel has no overlay file system (module overlay), which containers need")
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        raise ClusterError("the kernel cannot filter bridged packets (module br_netfilter), which Services need")
    if lacking := NEEDED_CONTROLLERS - cgroup_controllers(Path("/proc/cgroups").read_text()):
        raise ClusterError(f"the kernel has no cgroup controller {', '.join(sorted(lacking))}, which the kubelet needs")
    if taken := conflicting_route(run("ip", "-json", "route")):
        raise ClusterError(f"the cluster's addresses overlap with this machine's route {taken}")


def missing_capabilities(status: str) -> list[str]:
    """Return the names of the capabilities that /proc/PID/status lacks among those needed."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]


def cgroup_controllers(text: str) -> set[str]:
    """Return the enabled controllers of /proc/cgroups."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name for name, _, _, enabled in rows if enabled == "1"}


def conflicting_route(routes: str) -> str | None:
    """Return a route of the machine (`ip -json route`) into our address ranges which is not our own."""
    ours = [ipaddress.ip_network(n) for n in (NETWORK, POD_CIDR, SERVICE_CIDR)]
    for route in json.loads(routes):
        if route["dst"] == "default" or route.get("dev") == HOST_LINK:
            continue
        with suppress(ValueError):
            if any(ipaddress.ip_network(route["dst"], strict=False).overlaps(n) for n in ours):
                return f"{route['dst']} ({route.get('dev', route.get('type', 'no device'))})"
    return None
