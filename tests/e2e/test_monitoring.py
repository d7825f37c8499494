"""Stories of one who connects Prometheus and Grafana: with prometheus-operator, or by annotations and plain files."""

import contextlib
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.deployments import Deployed, nano, wait_for
from e2e.footprint import MODEL_NAMESPACE
from e2e.operator_release import Release
from e2e.target import CHART, CHECKOUT
from glm_cluster import Cluster
from glm_cluster.prometheus import Prometheus, prometheus
from glm_cluster.prometheus_operator import (
    GROUP,
    Generated,
    PrometheusOperator,
    monitoring_crds,
    no_monitoring_crds,
    prometheus_operator,
)

pytestmark = pytest.mark.alone

NAME = "watched"
STACK = "stack"
"""The release of kube-prometheus-stack, which selects by this label."""

DASHBOARDS = frozenset(f"glm-glm-operator-dashboard-{path.stem}" for path in (CHART / "dashboards").glob("*.json"))
ALL = {
    f"podmonitors.{GROUP}": {"glm-glm-operator", "glm-glm-operator-gateways", "glm-glm-operator-workers"},
    f"prometheusrules.{GROUP}": {"glm-glm-operator"},
    "configmaps": DASHBOARDS,
}
SWITCHED_OFF = [
    flag for part in ("podMonitor", "rules", "dashboards") for flag in ("--set", f"monitoring.{part}.enabled=false")
]
RULES = {name: (CHART / f"files/{name}.yaml").read_text() for name in ("alerts", "recording")}
SPEC = {
    "slo": {"classes": [{"name": "chat", "ttft": "5s"}]},
    "scaling": {"mode": "Observe", "max": 2, "warmUpSeconds": 5},
}


@pytest.fixture(scope="module")
def cluster(release: Release) -> Cluster:
    found = release.target.cluster
    if found is None:
        pytest.skip("these stories add and remove CRDs of monitoring.coreos.com, so the cluster must be ours")
    return found


def monitoring(release: Release) -> dict[str, set[str]]:
    """Return the names of the release's objects for Prometheus and Grafana, by kind; of kinds that exist."""
    target, found = release.target, {}
    existing = {crd["metadata"]["name"] for crd in target.get("crds")["items"]} | {"configmaps"}
    for kind in ALL.keys() & existing:
        items = target.items(kind, release.namespace, f"app.kubernetes.io/instance={release.name}")
        found[kind] = {item["metadata"]["name"] for item in items}
    return found


@pytest.mark.long
def test_monitoring_comes_with_the_crds_and_goes_with_the_values(release: Release, cluster: Cluster) -> None:
    with no_monitoring_crds(cluster):
        release.install()
        assert monitoring(release) == {"configmaps": set()}
        release.assert_clean_logs()
    with monitoring_crds(cluster):
        try:
            release.install("--reset-then-reuse-values")  # what a user has set is kept; auto looks again
            assert monitoring(release) == ALL
            (folder,) = {each["metadata"]["annotations"]["grafana_folder"] for each in dashboards(release)}
            assert folder == "GLM"
            release.install("--set", "monitoring.rules.enabled=false", "--set", f"monitoring.labels.release={STACK}")
            assert monitoring(release) == {**ALL, f"prometheusrules.{GROUP}": set()}
            monitors = release.target.items(f"podmonitors.{GROUP}", release.namespace, f"release={STACK}")
            assert len(monitors) == 3
        finally:
            release.install(*SWITCHED_OFF)  # before the CRDs go: Helm upgrades no release with objects of unknown kinds
        assert monitoring(release) == {kind: set() for kind in ALL}


def dashboards(release: Release) -> list[dict[str, Any]]:
    return release.target.items("configmaps", release.namespace, "grafana_dashboard=1")


@pytest.fixture(scope="module")
def watched(release: Release, cluster: Cluster) -> Iterator[Deployed]:
    """One group of two pods, of which only the first is to be scraped by the PodMonitor."""
    manifest = nano(NAME, MODEL_NAMESPACE, ranks_per_pod=1)
    manifest["spec"] |= SPEC
    release.target.apply(manifest)
    deployed = Deployed(release.target, NAME, MODEL_NAMESPACE)
    deployed.wait_settled("1/1")
    deployed.wait_answers()
    yield deployed
    deployed.delete()


@contextlib.contextmanager
def chosen(release: Release, operator: PrometheusOperator) -> Iterator[Prometheus]:
    """Yield a Prometheus that runs as prometheus-operator says, with the selectors of kube-prometheus-stack."""
    of_stack, everywhere = {"matchLabels": {"release": STACK}}, dict[str, object]()
    selectors = {"podMonitorSelector": of_stack, "podMonitorNamespaceSelector": everywhere}
    selectors |= {"ruleSelector": of_stack, "ruleNamespaceSelector": everywhere}
    operator.create_prometheus(MODEL_NAMESPACE, STACK, **selectors)
    found: list[Generated] = []

    def is_whole() -> bool:
        generated = operator.generated(MODEL_NAMESPACE, STACK)
        found[:] = [generated]
        monitors = (f"podMonitor/{release.namespace}/{name}/0" for name in ALL[f"podmonitors.{GROUP}"])
        return all(monitor in generated.config for monitor in monitors) and bool(generated.rules)

    wait_for("a configuration with both monitors and the rules", is_whole, timeout_s=90)
    with prometheus(operator.cluster, found[0].config, found[0].rules) as running:
        yield running


@pytest.mark.long
def test_prometheus_operator_connects_workers_operator_and_rules(
    release: Release, cluster: Cluster, watched: Deployed
) -> None:
    labels = ("--set", f"monitoring.labels.release={STACK}")
    with prometheus_operator(cluster) as operator:
        try:
            release.install(*labels)
            with chosen(release, operator) as found:
                asks = ("--set", f"prometheus.url={found.url}", "--set", "prometheus.recordingRules=true")
                release.install(*labels, *asks)
                assert_connected(found, watched)
                pods = {each["labels"]["pod"] for each in found.targets() if each["labels"]["job"].endswith("-workers")}
                of_it = {pod for pod in pods if pod.startswith(f"{NAME}-")}  # stories before it left theirs
                assert of_it == {f"{NAME}-g0-0"}, "the pod that speaks for its group, and no other"
        finally:
            release.install(*SWITCHED_OFF)


@pytest.mark.long
def test_an_existing_prometheus_is_connected_by_annotations_and_plain_rules(
    release: Release, cluster: Cluster, watched: Deployed, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(documented("docs/autoscaling.md", "prometheus:\n"))
    with prometheus(cluster, annotated_pods(cluster), RULES) as found:
        try:
            release.install("--values", str(values), "--set", f"prometheus.url={found.url}")
            assert_connected(found, watched)
        finally:
            release.install()


def annotated_pods(cluster: Cluster) -> dict[str, Any]:
    """Return the job of docs/metrics.md, for a Prometheus outside of the cluster, and faster."""
    config: dict[str, Any] = yaml.safe_load(
        documented("docs/metrics.md", "scrape_configs:\n  - job_name: annotated-pods")
    )
    (job,) = config["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    discovery["kubeconfig_file"] = str(cluster.kubeconfig)
    return {"global": {"evaluation_interval": "5s"}, **config}


def documented(path: str, begin: str) -> str:
    """Return the block of YAML of a page that begins so."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (CHECKOUT / path).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(begin))
    return str(found)


def assert_connected(found: Prometheus, deployed: Deployed) -> None:
    """Assert that series, rules and the operator's questions are as they should be, and that no alert is about."""
    (group,) = deployed.status()["groups"]
    own = {"namespace": MODEL_NAMESPACE, "deployment": NAME, "group": group["name"], "revision": group["revision"]}

    def workers_say_whose_they_are() -> bool:
        series = found.query(f'glm_group_serving_timestamp_seconds{{deployment="{NAME}"}}')
        return [{name: each["metric"].get(name) for name in own} for each in series] == [own]

    wait_for("the labels that the worker says", workers_say_whose_they_are, timeout_s=60)
    ready = (
        f'max(glm_operator_condition{{namespace="{MODEL_NAMESPACE}",deployment="{NAME}",type="Ready",status="True"}})'
    )
    wait_for("the operator's own series", lambda: found.value(ready) == 1, timeout_s=60)
    assert found.query('{exported_namespace!=""}') == [], "the labels of Prometheus would have won"

    wait_for(
        "what Prometheus read", lambda: deployed.condition("MetricsAvailable")["reason"] == "MetricsRead", timeout_s=90
    )
    assert deployed.answers_right()
    wait_for("a latency in the status", lambda: deployed.status()["slo"]["classes"][0]["ttft"], timeout_s=120)

    since = datetime.fromtimestamp(time.time()).astimezone()
    wait_for("every rule evaluated", lambda: not late_rules(found, since), timeout_s=60)
    groups = [group for text in RULES.values() for group in yaml.safe_load(text)["groups"]]
    written = {rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]}
    assert {rule["name"] for rule in loaded_rules(found)} == written
    assert [(rule["name"], rule["lastError"]) for rule in loaded_rules(found) if rule["health"] != "ok"] == []
    assert found.alerts() == [], "a healthy deployment, and nothing even pending"


def loaded_rules(found: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in found.api("rules")["groups"] for rule in group["rules"]]


def late_rules(found: Prometheus, since: datetime) -> list[str]:
    """Return the rules that were last evaluated before then."""
    return [rule["name"] for rule in loaded_rules(found) if datetime.fromisoformat(rule["lastEvaluation"]) < since]
