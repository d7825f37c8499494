"""A real Prometheus as a guest of the cluster: it reaches pods by their IPs, and is reached at the node's.

Several may run at once, each at a port of its own. It is built from source, because Debian's cannot discover pods; a
configuration without discovery runs on Debian's, too. Configuration is JSON, which is YAML, too.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from glm_cluster import packages, web
from glm_cluster.addresses import NODE_IP
from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.guests import one_of_many
from glm_cluster.lifecycle import await_program
from glm_cluster.locking import locked
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes, parse_stat
from glm_cluster.programs import PROMETHEUS, Programs
from glm_cluster.waiting import wait_for

PORTS = range(9090, 9100)
RETENTION = "6h"

RULES = "RULES_OF_THIS_PROMETHEUS"
"""In a configuration that is a text: stands for the files that hold the rules."""

Config = str | Mapping[str, Any]
"""One of Prometheus' files: its text, or what it holds."""


@dataclass(frozen=True)
class Prometheus:
    """One Prometheus. It may be stopped and started again: its data stay until the end of the test."""

    processes: Processes
    name: str
    port: int
    folder: Path
    program: Path
    flags: Sequence[str] = ()

    @property
    def url(self) -> str:
        """Where pods, other programs of the cluster and this machine reach it."""
        return f"http://{NODE_IP}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers queries."""
        self.processes.start(self.name, self.program, *prometheus_flags(self.folder, self.port), *self.flags)
        await_program(self.processes, self.name, lambda: web.get(f"{self.url}/-/ready"))

    def stop(self) -> None:
        self.processes.stop(self.name)

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        self.processes.stop(self.name)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Let it accept connections and answer none."""
        self._signal(signal.SIGSTOP)
        wait_for("the standstill of every thread", self._stands_still, timeout_s=20, interval_s=0.01)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def reload(self, config: Config, rules: Mapping[str, Config] | None = None) -> None:
        """Give it another configuration, and other rules unless there are none; ClusterError says what is wrong."""
        write_files(self.folder, config, rules)
        web.get(f"{self.url}/-/reload", method="POST")

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series of an instant vector, each with `metric` and `value`; now, unless `at` is a Unix time."""
        moment = {} if at is None else {"time": at}
        found: list[dict[str, Any]] = self.api("query", query=expr, **moment)["result"]
        return found

    def value(self, expr: str) -> float | None:
        """Return the value of an expression that gives at most one series; None when it gives none."""
        found = self.query(expr)
        assert len(found) <= 1, f"{expr} gives {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def query_range(
        self, expr: str, start: float, end: float | None = None, step_s: float = 5.0
    ) -> list[dict[str, Any]]:
        """Return the series of a range, each with `metric` and `values`; up to now, unless `end` is a Unix time."""
        until = time.time() if end is None else end
        found: list[dict[str, Any]] = self.api("query_range", query=expr, start=start, end=until, step=step_s)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets, each with `labels`, `health` and `lastError`."""
        found: list[dict[str, Any]] = self.api("targets", state="active")["activeTargets"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing."""
        found: list[dict[str, Any]] = self.api("alerts")["alerts"]
        return found

    def api(self, path: str, **parameters: str | float) -> Any:
        """Return the data of one request to the HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urlencode(parameters)}"
        return json.loads(web.get(url))["data"]

    def _stands_still(self) -> bool:
        threads = Path(f"/proc/{self.processes.pid(self.name)}/task").iterdir()
        return all(parse_stat((thread / "stat").read_text()).state == "T" for thread in threads)

    def _signal(self, sign: signal.Signals) -> None:
        if pid := self.processes.pid(self.name):
            os.kill(pid, sign)


@contextmanager
def prometheus(
    cluster: Cluster,
    config: Config,
    rules: Mapping[str, Config] | None = None,
    flags: Sequence[str] = (),
    program: Path | None = None,
) -> Iterator[Prometheus]:
    """Yield a Prometheus with this configuration and these rule files; at the end it is gone, and its data.

    rules: what each file holds, by its name without .yaml. A configuration that is a text names them as RULES.
    program: another Prometheus than ours, such as `debian_prometheus(cluster)`.
    """
    program = program or built_prometheus(cluster)
    with one_of_many(cluster.paths, [f"prometheus-{port}" for port in PORTS]) as (processes, name):
        folder = cluster.paths.state / name
        shutil.rmtree(folder, ignore_errors=True)  # of a test that was killed
        try:
            write_files(folder, config, rules)
            found = Prometheus(processes, name, int(name.rpartition("-")[2]), folder, program, flags)
            found.start()
            yield found
        finally:
            processes.stop(name)
            shutil.rmtree(folder, ignore_errors=True)


def build_prometheus(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths, [PROMETHEUS])


def built_prometheus(cluster: Cluster) -> Path:
    """Return our Prometheus, built if need be."""
    build_prometheus(cluster.paths)
    return Programs(cluster.paths)[PROMETHEUS.name]


def debian_prometheus(cluster: Cluster) -> Path:
    """Return Debian's Prometheus, installed if need be: an older version, without Kubernetes service discovery."""
    with locked(cluster.paths):
        packages.install_missing(packages.PROMETHEUS)
    return Path("/usr/bin/prometheus")


def prometheus_flags(folder: Path, port: int) -> list[str]:
    return [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={NODE_IP}:{port}",
        "--web.enable-lifecycle",
    ]


def write_files(folder: Path, config: Config, rules: Mapping[str, Config] | None) -> None:
    """Write the configuration and, unless there are none, the rules. RULES in a text stands for where they lie."""
    places = str(rules_folder(folder) / "*.yaml")
    text = config.replace(RULES, places) if isinstance(config, str) else json.dumps({**config, "rule_files": [places]})
    if rules is not None:
        shutil.rmtree(rules_folder(folder), ignore_errors=True)
        rules_folder(folder).mkdir(parents=True)
        for name, rule in rules.items():
            (rules_folder(folder) / f"{name}.yaml").write_text(rule if isinstance(rule, str) else json.dumps(rule))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yaml").write_text(text)


def rules_folder(folder: Path) -> Path:
    return folder / "rules"


def pod_discovery_config(
    cluster: Cluster, *, interval_s: float = 5.0, namespaces: Sequence[str] = (), job: str = "pods"
) -> dict[str, Any]:
    """Return a configuration that scrapes every pod which says so in its prometheus.io/* annotations.

    scrape: "true"; port, path (/metrics) and scheme (http) as in the annotations that many installations honour.
    A pod's own labels win over what the discovery would add: namespace and pod. namespaces: all, unless some are named.
    """
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io_"
    scope = {"namespaces": {"names": list(namespaces)}} if namespaces else {}
    interval = f"{round(interval_s * 1000)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": [
            {
                "job_name": job,
                "honor_labels": True,
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(cluster.kubeconfig), **scope}],
                "relabel_configs": [
                    {"action": "keep", "source_labels": [f"{annotation}scrape"], "regex": "true"},
                    {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Failed|Succeeded"},
                    # Discovery gives a target for every port of a pod; made the same, they become one.
                    {
                        "source_labels": ["__meta_kubernetes_pod_ip", f"{annotation}port"],
                        "separator": ":",
                        "regex": "(.+:.+)",
                        "target_label": "__address__",
                    },
                    {"source_labels": [f"{annotation}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
                    {"source_labels": [f"{annotation}scheme"], "regex": "(https?)", "target_label": "__scheme__"},
                    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                ],
            }
        ],
    }
