"""prometheus-operator as a guest: what it makes of PodMonitors and PrometheusRules, for a Prometheus to run on.

It watches all namespaces. Its Prometheus objects have no pods: the configuration it generates is read from its Secret
and given to a Prometheus that is a guest, too (`prometheus(cluster, generated.config, generated.rules)`).
"""

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_cluster import web
from glm_cluster.addresses import API_SERVER, NODE_IP
from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.crds import add_crds, remove_crds
from glm_cluster.guests import only_guest
from glm_cluster.lifecycle import await_program
from glm_cluster.locking import locked
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes
from glm_cluster.programs import PROMETHEUS_OPERATOR, Programs
from glm_cluster.prometheus import RULES

NAME = PROMETHEUS_OPERATOR.name
PORT = 9180
GROUP = "monitoring.coreos.com"
KINDS = ("podmonitors", "servicemonitors", "probes", "prometheusrules", "prometheuses")
"""Of its ten the ones that its controller of Prometheus objects must find: each takes a second to add and remove."""


@dataclass(frozen=True)
class Generated:
    """The configuration that prometheus-operator made, and the rule files it names, by name without .yaml."""

    config: str
    rules: dict[str, str]


@dataclass(frozen=True)
class PrometheusOperator:
    """prometheus-operator, running."""

    cluster: Cluster

    def create_prometheus(self, namespace: str, name: str, **spec: object) -> None:
        """Create a Prometheus object that selects every monitor and rule of its namespace, unless spec says else."""
        manifest = prometheus_object(self.cluster.paths, namespace, name, spec)
        self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))

    def generated(self, namespace: str, name: str) -> Generated:
        """Return what it has generated for a Prometheus object by now; ClusterError while there is nothing yet."""
        secret = self.cluster.get("secret", f"prometheus-{name}", "-n", namespace)
        config_maps = self.cluster.get("configmaps", "-n", namespace, "-l", f"prometheus-name={name}")
        return Generated(runnable(secret_text(secret), name), rule_files(config_maps["items"]))


def secret_text(secret: dict[str, Any]) -> str:
    return gzip.decompress(base64.b64decode(secret["data"]["prometheus.yaml.gz"])).decode()


def runnable(config: str, name: str) -> str:
    """Return a generated configuration as the reloader in its pod would hand it on, with the rules' place as RULES."""
    mounted = f"/etc/prometheus/rules/prometheus-{name}-rulefiles-0/*.yaml"
    return config.replace("$(POD_NAME)", f"prometheus-{name}-0").replace("$(SHARD)", "0").replace(mounted, RULES)


def rule_files(config_maps: list[dict[str, Any]]) -> dict[str, str]:
    files = [entry for config_map in config_maps for entry in (config_map.get("data") or {}).items()]
    return {file.removesuffix(".yaml"): text for file, text in files}


def prometheus_object(paths: Paths, namespace: str, name: str, spec: dict[str, object]) -> dict[str, object]:
    """Return a Prometheus object. Its version is the newest that this prometheus-operator knows."""
    everything: dict[str, object] = {}
    selectors = {f"{kind}Selector": everything for kind in ("podMonitor", "serviceMonitor", "probe", "rule")}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Prometheus",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "scrapeInterval": "5s",
            "evaluationInterval": "5s",
            "apiserverConfig": {"host": API_SERVER, "tlsConfig": tls_files(paths)},
            **selectors,
            **spec,
        },
    }


def tls_files(paths: Paths) -> dict[str, object]:
    """Return the files by which a guest is an admin: in a kubeconfig they are no files."""
    return {
        "caFile": str(paths.pki / "ca.crt"),
        "certFile": str(paths.guests / "admin.crt"),
        "keyFile": str(paths.guests / "admin.key"),
    }


def write_tls_files(cluster: Cluster) -> None:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    (user,) = (entry["user"] for entry in config["users"])
    for field, suffix in (("client-certificate-data", "crt"), ("client-key-data", "key")):
        (cluster.paths.guests / f"admin.{suffix}").write_bytes(base64.b64decode(user[field]))


def operator_flags() -> list[str]:
    return [f"--web.listen-address={NODE_IP}:{PORT}", "--kubelet-endpoints=false", "--log-level=info"]


def build_prometheus_operator(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths, [PROMETHEUS_OPERATOR])


def crd_files(paths: Paths) -> list[Path]:
    folder = Programs(paths).manifests(PROMETHEUS_OPERATOR)
    return [folder / f"{GROUP}_{kind}.yaml" for kind in KINDS]


@contextmanager
def monitoring_crds(cluster: Cluster) -> Iterator[None]:
    """Let the cluster have prometheus-operator's CRDs. Nobody else may add or remove them meanwhile."""
    build_prometheus_operator(cluster.paths)
    with only_guest(cluster.paths, NAME):
        add_crds(cluster, *crd_files(cluster.paths))
        try:
            yield
        finally:
            remove_crds(cluster, GROUP)


@contextmanager
def no_monitoring_crds(cluster: Cluster) -> Iterator[None]:
    """Let the cluster have none of prometheus-operator's CRDs. Nobody else may add them meanwhile."""
    with only_guest(cluster.paths, NAME):
        remove_crds(cluster, GROUP)
        yield


@contextmanager
def prometheus_operator(cluster: Cluster) -> Iterator[PrometheusOperator]:
    """Run prometheus-operator, with its CRDs; at the end both are gone, and every object of theirs."""
    build_prometheus_operator(cluster.paths)
    with only_guest(cluster.paths, NAME) as processes:
        add_crds(cluster, *crd_files(cluster.paths))
        try:
            start(cluster, processes)
            yield PrometheusOperator(cluster)
        finally:
            processes.stop(NAME)
            remove_crds(cluster, GROUP)


def start(cluster: Cluster, processes: Processes) -> None:
    write_tls_files(cluster)
    program = Programs(cluster.paths)[NAME]
    processes.start(NAME, "env", f"KUBECONFIG={cluster.kubeconfig}", program, *operator_flags())
    await_program(processes, NAME, is_answering)


def is_answering() -> bool:
    """Whether it answers, with an empty body; ClusterError when not."""
    web.get(f"http://{NODE_IP}:{PORT}/healthz")
    return True
