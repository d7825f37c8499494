"""Bring the cluster up and take it down: the order of things, and what each waits for."""

import json
import time

from glm_cluster import dns, registry
from glm_cluster.addresses import CLUSTER_DOMAIN, DNS_SERVER, GPU_RESOURCE, NODE_GPUS, NODE_NAME
from glm_cluster.building import build_missing
from glm_cluster.certificates import create_certificates
from glm_cluster.cgroups import create_cgroups
from glm_cluster.cleanup import clean_cache, clean_up
from glm_cluster.cluster import Cluster
from glm_cluster.containers import Containerd
from glm_cluster.control_plane import (
    apiserver_flags,
    audit_policy,
    controller_manager_flags,
    etcd_flags,
    scheduler_flags,
)
from glm_cluster.errors import ClusterError
from glm_cluster.locking import locked
from glm_cluster.network import create_network
from glm_cluster.node import (
    cni_conflist,
    containerd_config,
    kube_proxy_flags,
    kubelet_configuration,
    kubelet_flags,
    pause_image,
)
from glm_cluster.packages import install_missing
from glm_cluster.paths import Paths
from glm_cluster.pause import pause_archive
from glm_cluster.preflight import check, check_caller, load_modules
from glm_cluster.processes import Processes
from glm_cluster.programs import Programs
from glm_cluster.progress import duration, say, step
from glm_cluster.waiting import GaveUp, wait_for

PATIENCE_S = 120.0
"""Upper bound of every wait: on an idle machine each takes seconds, on one that builds and trains meanwhile more."""


def up(paths: Paths) -> Cluster:
    """Return a running cluster: the one that is up already if it is whole, else a new one."""
    check(paths)
    with locked(paths):
        install_missing()
        load_modules()
        build_missing(paths)
        cluster = Cluster(paths)
        if not cluster.is_whole():
            start = time.monotonic()
            with step("clean-up"):
                clean_up(paths)
            bring_up(cluster)
            say(f"Kubernetes is ready after {duration(time.monotonic() - start)}.")
    return cluster


def down(paths: Paths) -> None:
    """Leave nothing of the cluster but the cache."""
    check_caller()
    with locked(paths), step("cluster-down"):
        clean_up(paths)


def clean(paths: Paths) -> None:
    """Remove the cache, too."""
    check_caller()
    with locked(paths), step(f"cluster-clean of {paths.cache}"):
        clean_cache(paths)


def bring_up(cluster: Cluster) -> None:
    """Start everything on a clean machine. Programs that need nothing of each other start together."""
    paths, programs = cluster.paths, Programs(cluster.paths)
    processes = Processes(paths.pids, paths.logs)
    write_configuration(paths)
    with step("network"):
        create_network()
        create_cgroups()
    processes.start("etcd", programs["etcd"], *etcd_flags(paths))
    processes.start("registry", "docker-registry", "serve", paths.config / "registry.json")
    processes.start("containerd", "containerd", "--config", paths.config / "containerd.toml")
    with step("certificates"):
        create_certificates(paths)
    with step("API server"):
        processes.start("kube-apiserver", programs["kube-apiserver"], *apiserver_flags(paths))
        await_program(processes, "kube-apiserver", cluster.is_api_ready)
    processes.start("kube-controller-manager", programs["kube-controller-manager"], *controller_manager_flags(paths))
    processes.start("kube-scheduler", programs["kube-scheduler"], *scheduler_flags(paths))
    with step("container runtime"):
        prepare_runtime(paths, processes)
    processes.start("kubelet", programs["kubelet"], *kubelet_flags(paths))
    grant_rights(cluster)
    processes.start("kube-proxy", programs["kube-proxy"], *kube_proxy_flags(paths))
    processes.start("coredns", programs["coredns"], "-conf", paths.config / "Corefile")
    with step("node, DNS and registry"):
        await_program(processes, "kubelet", lambda: node_is_ready(cluster))
        add_gpus(cluster)
        await_program(processes, "kube-controller-manager", lambda: cluster.kubectl("get", "serviceaccount", "default"))
        await_program(processes, "coredns", dns_answers)
        await_program(processes, "registry", registry.is_answering)
    for name in processes.names():
        processes.require(name)
    paths.ready_mark.write_text(json.dumps({"at": time.time()}))


def write_configuration(paths: Paths) -> None:
    """Write every configuration file."""
    for folder in (paths.config / "cni", paths.logs, paths.containerd_root, paths.registry_storage):
        folder.mkdir(parents=True, exist_ok=True)
    paths.state.chmod(0o700)  # it holds the keys of the cluster
    texts = {
        "containerd.toml": containerd_config(paths),
        "Corefile": dns.corefile(paths),
        "resolv.conf": f"nameserver {DNS_SERVER}\n",
        "audit-policy.json": json.dumps(audit_policy(), indent=1),
        "cni/10-glm.conflist": json.dumps(cni_conflist(paths), indent=1),
        "kubelet.json": json.dumps(kubelet_configuration(paths), indent=1),
        "registry.json": json.dumps(registry.registry_config(paths), indent=1),
    }
    for name, text in texts.items():
        (paths.config / name).write_text(text)


def prepare_runtime(paths: Paths, processes: Processes) -> None:
    """Wait for containerd; rid its store of a dead cluster's containers, and give it the pause image."""
    containerd = Containerd(paths)
    await_program(processes, "containerd", containerd.is_answering)
    if containerd.remove_containers():  # the CRI plugin read them when it started, so it must start again
        processes.stop("containerd")
        processes.start("containerd", "containerd", "--config", paths.config / "containerd.toml")
        await_program(processes, "containerd", containerd.is_answering)
    if pause_image() not in containerd.images():
        containerd.import_image(pause_archive(paths))


def grant_rights(cluster: Cluster) -> None:
    """Give kubeadm's admins their role, and the API server the right to ask the kubelet for logs and exec."""
    admins = ("kubeadm:cluster-admins", "--clusterrole=cluster-admin", "--group=kubeadm:cluster-admins")
    kubelet = ("kubelet-api-admin", "--clusterrole=system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client")
    as_super_admin = ("--kubeconfig", str(cluster.paths.kubeconfigs / "super-admin.conf"))
    for binding in (admins, kubelet):
        cluster.kubectl(*as_super_admin, "create", "clusterrolebinding", *binding)


def node_is_ready(cluster: Cluster) -> bool:
    cluster.kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=1s")
    return True


def add_gpus(cluster: Cluster) -> None:
    """Let the node say that it has GPUs: the scheduler counts them, nothing else looks for them."""
    resource = GPU_RESOURCE.replace("/", "~1")  # as JSON pointers spell it
    patch = [
        {"op": "add", "path": f"/status/{field}/{resource}", "value": str(NODE_GPUS)}
        for field in ("capacity", "allocatable")
    ]
    cluster.kubectl("patch", "node", NODE_NAME, "--subresource=status", "--type=json", "-p", json.dumps(patch))


def dns_answers() -> bool:
    return bool(dns.resolve(f"kubernetes.default.svc.{CLUSTER_DOMAIN}"))


def await_program(processes: Processes, name: str, is_ready: object) -> None:
    """Wait until is_ready() is true; give up at once when the program that it depends on has ended.

    The error has the end of the program's log, whichever way it failed.
    """
    assert callable(is_ready)

    def poll() -> object:
        processes.require(name)
        return is_ready()

    try:
        wait_for(f"{name} being ready", poll, timeout_s=PATIENCE_S)
    except GaveUp:
        raise
    except ClusterError as error:
        raise ClusterError(f"{error}\nThe end of {processes.log(name)}:\n{processes.said(name)}") from error
