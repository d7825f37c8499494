"""Guests: programs that one test needs, whose they are, and what they are told."""

import base64
import gzip
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glm_cluster import keda, metrics_server, prometheus_operator
from glm_cluster.addresses import NODE_IP
from glm_cluster.aggregation import api_service
from glm_cluster.crds import remove_crds
from glm_cluster.errors import ClusterError
from glm_cluster.guests import guests, one_of_many, only_guest
from glm_cluster.locking import held
from glm_cluster.paths import Paths
from glm_cluster.prometheus import RULES, Prometheus, pod_discovery_config, prometheus_flags, write_files
from glm_cluster.prometheus_operator import prometheus_object, rule_files, runnable, secret_text

PATHS = Paths(cache=Path("/cache"), state=Path("/state"))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


def hold(lock: Path, has_it: Any, may_end: Any) -> None:
    with held(lock, "nobody"):
        has_it.set()
        may_end.wait(20)


@contextmanager
def another_process_holding(lock: Path) -> Iterator[Any]:
    """Let another process hold a lock until its event is set or it is killed at the end."""
    spawn = multiprocessing.get_context("spawn")
    has_it, may_end = spawn.Event(), spawn.Event()
    process = spawn.Process(target=hold, args=(lock, has_it, may_end))
    process.start()
    try:
        assert has_it.wait(20)
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def test_of_many_guests_each_process_has_its_own(paths: Paths) -> None:
    with (
        another_process_holding(paths.guests / "prometheus-1.lock"),
        one_of_many(paths, ["prometheus-1", "prometheus-2"]) as (_, mine),
    ):
        assert mine == "prometheus-2"


def test_when_every_place_is_taken_that_is_said(paths: Paths) -> None:
    with (
        another_process_holding(paths.guests / "prometheus-1.lock"),
        pytest.raises(ClusterError, match="every place is taken"),
        one_of_many(paths, ["prometheus-1"]),
    ):
        pass


def test_a_killed_process_leaves_its_place_to_the_next(paths: Paths) -> None:
    with another_process_holding(paths.guests / "keda-operator.lock") as process:
        process.kill()
        with only_guest(paths, "keda-operator") as processes:
            assert processes.names() == []


def test_what_a_killed_process_left_running_is_stopped_first(paths: Paths) -> None:
    paths.guests.mkdir(parents=True)
    (paths.guests / "keda-operator.json").write_text(json.dumps({"pid": 2**22 + 1, "start_ticks": 1}))
    with only_guest(paths, "keda-operator", "keda-adapter") as processes:
        assert processes.names() == []


def test_a_guest_that_dies_leaves_the_cluster_whole() -> None:
    assert guests(PATHS).pids != PATHS.pids


def test_no_two_guests_or_programs_of_the_cluster_share_a_port() -> None:
    ports = [
        *range(9090, 9100),
        prometheus_operator.PORT,
        metrics_server.PORT,
        keda.HEALTH_PORT,
        keda.METRICS_SERVICE_PORT,
        keda.ADAPTER_PORT,
        keda.ADAPTER_METRICS_PORT,
        *(2379, 2380, 5000, 6443, 8181, 10249, 10250, 10256, 10257, 10259),
    ]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize(
    "flag",
    [
        *prometheus_flags(PATHS.state / "prometheus-9090", 9090),
        *prometheus_operator.operator_flags(),
        *metrics_server.metrics_server_flags(PATHS),
        *keda.operator_flags(PATHS),
        *keda.adapter_flags(PATHS),
    ],
)
def test_every_file_of_a_guest_is_in_the_state(flag: str) -> None:
    value = flag.partition("=")[2]
    assert not value.startswith("/") or value.startswith("/state/")


# Prometheus


def test_a_configuration_that_is_no_text_is_told_where_its_rules_lie(tmp_path: Path) -> None:
    write_files(tmp_path, {"global": {}}, {"alerts": {"groups": []}})
    written = json.loads((tmp_path / "prometheus.yaml").read_text())
    assert written == {"global": {}, "rule_files": [f"{tmp_path}/rules/*.yaml"]}
    assert json.loads((tmp_path / "rules/alerts.yaml").read_text()) == {"groups": []}


def test_a_configuration_that_is_a_text_names_the_place_of_its_rules(tmp_path: Path) -> None:
    write_files(tmp_path, f"rule_files: [{RULES}]\n", {"alerts": "groups: []\n"})
    assert (tmp_path / "prometheus.yaml").read_text() == f"rule_files: [{tmp_path}/rules/*.yaml]\n"
    assert (tmp_path / "rules/alerts.yaml").read_text() == "groups: []\n"


def test_rules_stay_when_only_the_configuration_changes(tmp_path: Path) -> None:
    write_files(tmp_path, {}, {"alerts": "groups: []\n"})
    write_files(tmp_path, {"global": {}}, None)
    assert (tmp_path / "rules/alerts.yaml").exists()


def test_new_rules_take_the_place_of_old_ones(tmp_path: Path) -> None:
    write_files(tmp_path, {}, {"old": "groups: []\n"})
    write_files(tmp_path, {}, {"new": "groups: []\n"})
    assert [file.name for file in (tmp_path / "rules").iterdir()] == ["new.yaml"]


@pytest.mark.parametrize(
    ("series", "value"), [([], None), ([{"metric": {}, "value": [1.0, "0.25"]}], 0.25)], ids=["none", "one"]
)
def test_no_series_is_none_and_no_zero(
    monkeypatch: pytest.MonkeyPatch, series: list[dict[str, Any]], value: float | None
) -> None:
    found = Prometheus(guests(PATHS), "prometheus-9090", 9090, PATHS.state, Path("prometheus"))
    monkeypatch.setattr(Prometheus, "api", lambda *_, **__: {"result": series})
    assert found.value("up") == value


def test_pods_are_discovered_by_their_annotations_and_keep_their_own_labels() -> None:
    cluster: Any = SimpleNamespace(kubeconfig=Path("/state/admin.conf"))
    (job,) = pod_discovery_config(cluster, interval_s=0.5, namespaces=["models"])["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    assert job["honor_labels"]
    assert discovery == {
        "role": "pod",
        "kubeconfig_file": "/state/admin.conf",
        "namespaces": {"names": ["models"]},
    }
    read = {label for rule in job["relabel_configs"] for label in rule["source_labels"]}
    assert {f"__meta_kubernetes_pod_annotation_prometheus_io_{name}" for name in ("scrape", "port", "path")} <= read


def test_a_scrape_never_takes_longer_than_the_time_to_the_next() -> None:
    cluster: Any = SimpleNamespace(kubeconfig=Path("/state/admin.conf"))
    times = pod_discovery_config(cluster, interval_s=0.5)["global"]
    assert times["scrape_timeout"] == times["scrape_interval"] == "500ms"


# prometheus-operator


def test_a_generated_configuration_is_read_from_its_secret() -> None:
    data = base64.b64encode(gzip.compress(b"global: {}\n")).decode()
    assert secret_text({"data": {"prometheus.yaml.gz": data}}) == "global: {}\n"


def test_a_generated_configuration_names_pod_shard_and_rules_as_in_its_pod() -> None:
    config = "a: $(POD_NAME)\nb: $(SHARD)\nc: /etc/prometheus/rules/prometheus-it-rulefiles-0/*.yaml\n"
    assert runnable(config, "it") == f"a: prometheus-it-0\nb: 0\nc: {RULES}\n"


def test_rule_files_are_named_once_without_their_suffix() -> None:
    assert rule_files([{"data": {"a.yaml": "x"}}, {"data": None}, {"data": {"b.yaml": "y"}}]) == {"a": "x", "b": "y"}


def test_a_prometheus_object_starts_no_pod_and_selects_what_is_in_its_namespace() -> None:
    manifest: Any = prometheus_object(PATHS, "monitoring", "it", {"scrapeInterval": "1s"})
    assert manifest["spec"]["replicas"] == 0
    assert manifest["spec"]["podMonitorSelector"] == {}
    assert "podMonitorNamespaceSelector" not in manifest["spec"]
    assert manifest["spec"]["scrapeInterval"] == "1s"


# APIs behind the API server


def test_the_api_server_finds_a_guest_behind_a_service_without_pods() -> None:
    service, addresses, api = (dict(m) for m in api_service("it", "kube-system", 9443, "metrics.k8s.io", "v1beta1"))
    spec: Any = service["spec"]
    assert "selector" not in spec
    assert addresses["endpoints"] == [{"addresses": [NODE_IP], "conditions": {"ready": True}}]
    metadata: Any = addresses["metadata"]
    assert metadata["labels"] == {"kubernetes.io/service-name": "it"}
    assert api["metadata"] == {"name": "v1beta1.metrics.k8s.io"}


def test_metrics_server_asks_a_kubelet_again_only_after_the_last_answer_was_due() -> None:
    flags = dict(flag.split("=") for flag in metrics_server.metrics_server_flags(PATHS) if "=" in flag)
    resolution, timeout = (
        int(flags[name].rstrip("s")) for name in ("--metric-resolution", "--kubelet-request-timeout")
    )
    assert timeout < resolution


# CustomResourceDefinitions


class FakeCluster:
    """An API server that has two CRDs, and one object with a finalizer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def get(self, *args: str) -> dict[str, Any]:
        if args == ("crds",):
            groups = {"scaledobjects.keda.sh": "keda.sh", "glmdeployments.glm-operator.io": "glm-operator.io"}
            items = [{"metadata": {"name": name}, "spec": {"group": group}} for name, group in groups.items()]
            return {"items": items}
        return {"items": [{"metadata": {"name": "it", "namespace": "here", "finalizers": ["finalizer.keda.sh"]}}]}

    def kubectl(self, *args: str) -> str:
        self.calls.append(args)
        return ""


def test_crds_of_a_guest_are_removed_and_no_others() -> None:
    cluster: Any = FakeCluster()
    remove_crds(cluster, "keda.sh")
    assert cluster.calls[-1][:3] == ("delete", "crds", "scaledobjects.keda.sh")
    assert "glmdeployments.glm-operator.io" not in cluster.calls[-1]


def test_finalizers_do_not_outlive_who_acts_on_them() -> None:
    cluster: Any = FakeCluster()
    remove_crds(cluster, "keda.sh")
    assert cluster.calls[0][:5] == ("patch", "scaledobjects.keda.sh", "it", "-n", "here")
    assert cluster.calls[0][-1] == '{"metadata": {"finalizers": null}}'
