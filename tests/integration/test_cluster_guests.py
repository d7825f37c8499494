"""Guests of the cluster, each for itself: Prometheus, prometheus-operator, metrics-server, KEDA.

What fails here is the cluster's fault or theirs. None leaves anything behind.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from glm_cluster import Cluster, ClusterError
from glm_cluster.containers import Containerd
from glm_cluster.guests import only_guest
from glm_cluster.keda import CRD_GROUPS, keda
from glm_cluster.metrics_server import metrics_server
from glm_cluster.prometheus import Prometheus, debian_prometheus, pod_discovery_config, prometheus
from glm_cluster.prometheus_operator import (
    GROUP,
    Generated,
    PrometheusOperator,
    monitoring_crds,
    no_monitoring_crds,
    prometheus_operator,
)
from glm_cluster.waiting import wait_for

pytestmark = pytest.mark.e2e

NAMESPACE = "glm-mon-guests"
EXPORTER = """
import http.server

class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b'probe_total{namespace="of its own"} 7\\n')

http.server.ThreadingHTTPServer(("", 9090), Metrics).serve_forever()
"""
EVERY_SECOND = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
RULES = {"probe": {"groups": [{"name": "probe", "rules": [{"record": "probe:demand", "expr": "vector(25)"}]}]}}


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    try:
        return Cluster.running()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def exporter(cluster: Cluster) -> Iterator[None]:
    """A Deployment of one pod with two ports, of which one has metrics."""
    on_node = [name for name in Containerd(cluster.paths).images() if "/glm-operator@" in name]  # any has Python
    image = on_node[0] if on_node else cluster.push_images().operator.reference
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    try:
        apply(cluster, deployment(image))
        cluster.kubectl("rollout", "status", "deployment/probe", "-n", NAMESPACE, "--timeout=120s")
        yield
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout_s=150)


@pytest.fixture(autouse=True)
def _nothing_left(cluster: Cluster) -> Iterator[None]:
    """Look while nobody else may run one of them."""
    yield
    with contextlib.ExitStack() as alone:
        for name in ("prometheus-operator", "metrics-server", "keda-operator"):
            alone.enter_context(only_guest(cluster.paths, name))
        crds = {name.partition(".")[2] for name in names(cluster, "crds")}
        assert crds.isdisjoint({GROUP, *CRD_GROUPS})
        assert [api for api in names(cluster, "apiservices") if api.endswith("metrics.k8s.io")] == []


def names(cluster: Cluster, kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.get(kind)["items"]]


def apply(cluster: Cluster, manifest: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def deployment(image: str) -> dict[str, Any]:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", EXPORTER],
        "ports": [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 9090}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "probe", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "probe"}},
            "template": {
                "metadata": {"labels": {"app": "probe"}, "annotations": annotations},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


def monitoring(kind: str, **spec: object) -> dict[str, Any]:
    metadata = {"name": "probe", "namespace": NAMESPACE}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def scraped(found: Prometheus) -> dict[str, str]:
    """Return the labels of the only series of the exporter, when it has been scraped."""
    (series,) = wait_for("a scrape", lambda: found.query("probe_total"), timeout_s=60)
    labels: dict[str, str] = series["metric"]
    return labels


@pytest.mark.usefixtures("exporter")
def test_pods_are_scraped_by_their_annotations(cluster: Cluster) -> None:
    with prometheus(cluster, pod_discovery_config(cluster, interval_s=1, namespaces=[NAMESPACE])) as found:
        assert scraped(found)["namespace"] == "of its own"
        assert [target["labels"]["namespace"] for target in found.targets()] == [NAMESPACE]


@pytest.mark.long
@pytest.mark.usefixtures("exporter")
def test_pods_and_rules_are_found_as_prometheus_operator_says(cluster: Cluster) -> None:
    endpoints = [{"port": "metrics", "honorLabels": True}]
    with prometheus_operator(cluster) as operator:
        operator.create_prometheus(NAMESPACE, "probe", scrapeInterval="1s", evaluationInterval="1s")
        apply(
            cluster, monitoring("PodMonitor", selector={"matchLabels": {"app": "probe"}}, podMetricsEndpoints=endpoints)
        )
        apply(cluster, monitoring("PrometheusRule", **RULES["probe"]))
        generated = wait_for("the configuration", lambda: whole(operator), timeout_s=60)
        with prometheus(cluster, generated.config, generated.rules) as found:
            assert scraped(found)["namespace"] == "of its own"
            assert wait_for("the rule", lambda: found.value("probe:demand"), timeout_s=60) == 25


def whole(operator: PrometheusOperator) -> Generated | None:
    """Return what was generated, once monitor and rule are in it."""
    generated = operator.generated(NAMESPACE, "probe")
    return generated if f"podMonitor/{NAMESPACE}/probe" in generated.config and generated.rules else None


@pytest.mark.long
def test_crds_come_and_go_without_the_operator(cluster: Cluster) -> None:
    with monitoring_crds(cluster):
        assert f"podmonitors.{GROUP}" in names(cluster, "crds")
    with no_monitoring_crds(cluster):
        assert f"podmonitors.{GROUP}" not in names(cluster, "crds")


@pytest.mark.parametrize("which", ["ours", "debian's"])
def test_prometheus_keeps_its_data_over_a_crash(cluster: Cluster, which: str) -> None:
    program = debian_prometheus(cluster) if which == "debian's" else None
    start = time.time()
    with prometheus(cluster, {"global": EVERY_SECOND}, RULES, program=program) as found:
        recorded = lambda: found.query_range("probe:demand", start, step_s=1)  # noqa: E731
        (before,) = wait_for("the rule", recorded, timeout_s=60)
        found.kill()
        with pytest.raises(ClusterError, match="does not answer"):
            found.query("probe:demand")
        found.start()
        (after,) = recorded()
        assert after["values"][: len(before["values"])] == before["values"]


@pytest.mark.long
def test_a_hung_prometheus_answers_nobody_and_comes_back(cluster: Cluster) -> None:
    with prometheus(cluster, {"global": EVERY_SECOND}) as found:
        with found.hung(), pytest.raises(ClusterError, match="timed out"):
            found.query("vector(1)")
        assert found.value("vector(1)") == 1


@pytest.mark.long
def test_a_refused_configuration_is_told_and_changes_nothing(cluster: Cluster) -> None:
    with prometheus(cluster, {"global": EVERY_SECOND}, RULES) as found:
        with pytest.raises(ClusterError, match="field no_such_field not found"):
            found.reload({"no_such_field": 1})
        assert wait_for("the rule", lambda: found.value("probe:demand"), timeout_s=60) == 25


@pytest.mark.long
@pytest.mark.usefixtures("exporter")
def test_an_autoscaler_on_cpu_reads_metrics_server(cluster: Cluster) -> None:
    with metrics_server(cluster):
        top = ("top", "pods", "-n", NAMESPACE, "--no-headers")
        assert "probe-" in wait_for("the pod's usage", lambda: cluster.kubectl(*top), timeout_s=90)


@pytest.mark.long
@pytest.mark.usefixtures("exporter")
def test_keda_scales_on_prometheus(cluster: Cluster) -> None:
    with prometheus(cluster, {"global": EVERY_SECOND}, RULES) as found, keda(cluster):
        query = {"serverAddress": found.url, "query": "probe:demand", "threshold": "10"}
        spec = {
            "scaleTargetRef": {"name": "probe"},
            "pollingInterval": 5,
            "minReplicaCount": 1,
            "maxReplicaCount": 3,
            "triggers": [{"type": "prometheus", "metadata": query}],
        }
        metadata = {"name": "probe", "namespace": NAMESPACE}
        apply(cluster, {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec})
        wait_for("25 of demand scaled to 3", lambda: num_replicas(cluster) == 3, timeout_s=120)


def num_replicas(cluster: Cluster) -> int:
    wanted: int = cluster.get("deployment", "probe", "-n", NAMESPACE)["spec"]["replicas"]
    return wanted
