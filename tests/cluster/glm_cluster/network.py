"""The cluster's network namespace and the one cable between it and the machine.

Every program runs in the namespace, so no iptables rule, port or address of the machine changes. It has no way out,
which is how an air-gapped cluster looks.
"""

from contextlib import suppress
from pathlib import Path

from glm_cluster.addresses import HOST_IP, HOST_LINK, NETNS, NODE_IP, NODE_LINK, POD_CIDR, SERVICE_CIDR
from glm_cluster.commands import run
from glm_cluster.errors import ClusterError
from glm_cluster.mounts import mounts_now

NETNS_FOLDER = Path("/run/netns")
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
NEEDED_INOTIFY_INSTANCES = 1024


def create_network() -> None:
    """Make the namespace, the veth pair and the routes to Services and pods."""
    run("ip", "netns", "add", NETNS)
    run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK)
    run("ip", "link", "set", NODE_LINK, "netns", NETNS)
    run("ip", "addr", "add", f"{HOST_IP}/24", "dev", HOST_LINK)
    run("ip", "link", "set", HOST_LINK, "up")
    ip = ("ip", "-n", NETNS)
    run(*ip, "link", "set", "lo", "up")
    run(*ip, "addr", "add", f"{NODE_IP}/24", "dev", NODE_LINK)
    run(*ip, "link", "set", NODE_LINK, "up")
    run(*ip, "route", "add", "default", "via", HOST_IP)
    for network in (SERVICE_CIDR, POD_CIDR):
        run("ip", "route", "add", network, "via", NODE_IP)
    forwarding = ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    run("nsenter", f"--net={NETNS_FOLDER / NETNS}", "sysctl", "-qw", *forwarding)
    if int(INOTIFY_INSTANCES.read_text()) < NEEDED_INOTIFY_INSTANCES:  # kubelet and containerd watch many files
        INOTIFY_INSTANCES.write_text(str(NEEDED_INOTIFY_INSTANCES))


def has_namespace() -> bool:
    """Whether a cluster has made the namespace: one of this state folder or another, whole or not."""
    return (NETNS_FOLDER / NETNS).exists()


def inhabitants() -> list[int]:
    """Return every process in the namespace (those of pods have namespaces of their own)."""
    if not has_namespace():
        return []
    return [int(pid) for pid in run("ip", "netns", "pids", NETNS).split()]


def remove_network() -> None:
    """Remove the namespace and the veth pair; their routes go with them."""
    if has_namespace():
        run("ip", "netns", "delete", NETNS)
    with suppress(ClusterError):  # it went with the namespace, at once or in a moment
        run("ip", "link", "delete", HOST_LINK)
    # `ip netns add` mounts the folder onto itself; with nobody's namespace left in it that mount is ours to take back.
    is_mounted = any(m.point == NETNS_FOLDER for m in mounts_now())
    if is_mounted and not any(NETNS_FOLDER.iterdir()):
        run("umount", NETNS_FOLDER)
