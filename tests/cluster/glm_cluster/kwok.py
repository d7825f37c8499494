"""Fake nodes: they take pods, say at once that these are ready, and run nothing.

kwok plays their kubelet. It is a program of the cluster while a story needs it, so `down` ends it whatever became of
the story. Only pods that ask for it land there: the nodes are tainted.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glm_cluster.addresses import NETNS, NODE_IP
from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.commands import run
from glm_cluster.errors import CommandFailed
from glm_cluster.lifecycle import await_program
from glm_cluster.locking import locked
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes
from glm_cluster.programs import KWOK, ON_DEMAND, Programs

STAGES = Path(__file__).with_name("kwok_stages.yaml")
MARK = ("kwok.x-k8s.io/node", "fake")
"""Annotation of the nodes that kwok manages, and taint that keeps everything else off them."""

NODE_SELECTOR = {"type": "kwok"}
TOLERATIONS = [{"key": MARK[0], "operator": "Equal", "value": MARK[1], "effect": "NoSchedule"}]
"""What a pod needs to land on one."""

FAKE_POD_CIDR = "10.244.128.0/17"
"""Addresses of their pods: of the cluster's, those far from what the controller manager gives its nodes."""

ROOM = {"cpu": "1000", "memory": "4Ti", "ephemeral-storage": "4Ti", "pods": "110"}
"""Of one node: as many pods as a kubelet takes, and of the rest more than they ask for."""


def fake_node(name: str) -> dict[str, object]:
    key, value = MARK
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**NODE_SELECTOR, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {key: value},
        },
        "spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]},
        "status": {"capacity": ROOM, "allocatable": ROOM},
    }


def kwok_flags(paths: Paths) -> list[str]:
    return [
        f"--kubeconfig={paths.kubeconfig}",
        f"--config={STAGES}",
        f"--manage-nodes-with-annotation-selector={'='.join(MARK)}",
        f"--node-ip={NODE_IP}",
        f"--cidr={FAKE_POD_CIDR}",
        "--node-lease-duration-seconds=40",  # renewed every 10 s, as by a kubelet
    ]


def build_kwok(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths, ON_DEMAND)


@contextmanager
def fake_nodes(cluster: Cluster, num_nodes: int) -> Iterator[list[str]]:
    """Yield the names of ready fake nodes. At the end they are gone, and the pods on them."""
    build_kwok(cluster.paths)
    processes = Processes(cluster.paths.pids, cluster.paths.logs)
    names = [f"kwok-{number}" for number in range(num_nodes)]
    remove(cluster, processes)  # those of a story that was killed
    try:
        # A fake pod's address is one of the namespace itself. Nobody listens there, unless a story does, so whoever
        # asks is refused at once; without the route the packet would go round until its time is up.
        _ip("route", "replace", "local", FAKE_POD_CIDR, "dev", "lo")
        processes.start(KWOK.name, Programs(cluster.paths)[KWOK.name], *kwok_flags(cluster.paths))
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed([fake_node(name) for name in names])))
        await_program(processes, KWOK.name, lambda: are_ready(cluster, names))
        yield names
    finally:
        remove(cluster, processes)


def listed(items: list[dict[str, object]]) -> dict[str, object]:
    """Return manifests as the one that kubectl applies in one go."""
    return {"apiVersion": "v1", "kind": "List", "items": items}


def are_ready(cluster: Cluster, names: list[str]) -> bool:
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=1s", *(f"node/{name}" for name in names))
    return True


def remove(cluster: Cluster, processes: Processes) -> None:
    """Remove kwok and all that it plays. Nobody is left then that a pod's graceful end could wait for."""
    processes.stop(KWOK.name)
    selector = ",".join(f"{key}={value}" for key, value in NODE_SELECTOR.items())
    found = cluster.get("nodes", "-l", selector)["items"]
    names = [node["metadata"]["name"] for node in found]
    if names:
        cluster.kubectl("delete", "nodes", *names, "--ignore-not-found")  # first, or what is deleted comes back to them
        cluster.kubectl("delete", "leases", "-n", "kube-node-lease", *names, "--ignore-not-found")
    for name in names:
        on_it = ("--all-namespaces", f"--field-selector=spec.nodeName={name}")
        cluster.kubectl("delete", "pods", *on_it, "--force", "--grace-period=0")
    with suppress(CommandFailed):  # it was not there
        _ip("route", "delete", "local", FAKE_POD_CIDR, "dev", "lo")


def _ip(*args: str) -> None:
    run("ip", "-n", NETNS, *args)
