"""The cluster comes up over what a dead one left, and goes without a trace.

Takes minutes of its own cluster: skipped while one is up, which is somebody's and is left alone.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from glm_cluster import Cluster, ClusterError
from glm_cluster.addresses import NETNS
from glm_cluster.cleanup import CONTAINER_LOG_LINKS, command_line, is_shim, pids
from glm_cluster.commands import run
from glm_cluster.lifecycle import down, up
from glm_cluster.mounts import mounts_now
from glm_cluster.node import pause_image
from glm_cluster.paths import Paths, find_paths
from glm_cluster.processes import Processes, stat_of
from glm_cluster.waiting import wait_for

pytestmark = pytest.mark.e2e

MEMORY_VOLUME = {"name": "memory", "emptyDir": {"medium": "Memory"}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "pause",
                "image": pause_image(),
                "imagePullPolicy": "Never",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
            }
        ],
        "volumes": [MEMORY_VOLUME],
    },
}


class Traces(NamedTuple):
    """What a cluster could leave on a machine."""

    mounts: list[str]
    links: list[str]
    routes: list[str]
    namespaces: list[str]
    cgroups: list[str]
    processes: list[str]
    log_links: list[str]


def is_ours(argv: list[str], paths: Paths) -> bool:
    """Whether the cluster started a process: not so a client that only names our kubeconfig."""
    started = argv[0].startswith(str(paths.programs)) if argv else False
    debian = bool(argv) and Path(argv[0]).name in ("containerd", "docker-registry")
    return started or is_shim(argv, paths.containerd_socket) or (debian and str(paths.config) in " ".join(argv))


def new_since(before: Traces, after: Traces) -> dict[str, list[str]]:
    """Return what is there now and was not; what else happens on the machine may end, but nothing of ours may stay."""
    pairs = zip(Traces._fields, before, after, strict=True)
    return {name: added for name, old, new in pairs if (added := sorted(set(new) - set(old)))}


def traces(paths: Paths) -> Traces:
    cgroup_mounts = [m.point for m in mounts_now() if m.kind in ("cgroup", "cgroup2")]
    commands = [(pid, command_line(pid)) for pid in pids() if stat_of(pid)]
    links = CONTAINER_LOG_LINKS.iterdir() if CONTAINER_LOG_LINKS.is_dir() else ()
    return Traces(
        mounts=sorted(str(m.point) for m in mounts_now()),
        links=sorted(link["ifname"] for link in json.loads(run("ip", "-json", "link"))),
        routes=sorted(run("ip", "route").splitlines()),
        namespaces=run("ip", "netns", "list").split(),
        cgroups=sorted({str(f) for point in cgroup_mounts for f in point.iterdir() if f.is_dir()}),
        processes=[f"{pid} {' '.join(argv)}" for pid, argv in commands if is_ours(argv, paths)],
        log_links=sorted(str(link) for link in links),
    )


@pytest.fixture
def paths() -> Iterator[Paths]:
    """A machine without the cluster, before and after."""
    paths = find_paths(os.environ)
    if Cluster(paths).is_whole():
        pytest.skip("a cluster is up and is left alone; `make cluster-down` first to check how it goes")
    try:
        down(paths)
    except ClusterError as error:  # not root, not Linux
        pytest.skip(str(error))
    yield paths
    down(paths)


def run_pod(cluster: Cluster) -> None:
    """Run a pod in a namespace that enforces the restricted Pod Security Standard."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "probe", "labels": label}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    account = ("get", "serviceaccount", "default", "-n", "probe")
    wait_for("the namespace's service account", lambda: cluster.kubectl(*account), timeout_s=60)
    cluster.kubectl("create", "-n", "probe", "-f", "-", stdin=json.dumps(POD))
    cluster.kubectl("wait", "-n", "probe", "--for=condition=Ready", "pod/sleeper", "--timeout=120s", timeout_s=150)


def kill_programs(paths: Paths) -> None:
    """End every program as a machine's death does: at once, and containers, mounts and namespaces stay behind."""
    processes = Processes(paths.pids, paths.logs)
    for name in processes.names():
        pid = processes.pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, signal.SIGKILL)
    wait_for("their end", lambda: not any(processes.pid(name) for name in processes.names()), timeout_s=60)


def test_a_dead_cluster_is_replaced_and_a_cluster_goes_without_a_trace(paths: Paths) -> None:
    before = traces(paths)
    cluster = up(paths)
    run_pod(cluster)
    kill_programs(paths)
    dead = traces(paths)
    assert NETNS in dead.namespaces
    assert len(dead.mounts) > len(before.mounts)
    assert any("containerd-shim" in process for process in dead.processes)

    cluster = up(paths)
    run_pod(cluster)  # `create` fails if the first cluster's pod were still known
    assert Cluster.running() == cluster

    # What a command leaves that died between a start and its note, or while writing it.
    (paths.pids / "kubelet.json").unlink()
    (paths.pids / "etcd.json").write_text('{"pid": 1')
    down(paths)
    assert new_since(before, traces(paths)) == {}
    assert not Path(paths.state).exists()
    with pytest.raises(ClusterError, match="run `make cluster`"):
        Cluster.running()
