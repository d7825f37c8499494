"""Stories of scaling.mode External: an HPA on CPU or KEDA on Prometheus sets the groups, the operator only measures."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from e2e.arrivals import arriving
from e2e.audit import is_about, is_write, requests
from e2e.deployments import Deployed, wait_for
from e2e.footprint import MODEL_NAMESPACE
from e2e.operator_release import Release
from e2e.target import CHECKOUT
from glm_cluster import Cluster
from glm_cluster.keda import keda
from glm_cluster.metrics_server import metrics_server
from glm_cluster.prometheus import Prometheus, pod_discovery_config, prometheus

pytestmark = pytest.mark.long

NAME = "external"
SOON_S = 30
"""Stabilisation of a scale-down in these stories. The examples have 5 minutes."""

FEW, MANY = 2, 10
"""Requests in flight: FEW are work for one group of 4, MANY for three."""

CALM = 0.2
"""Requests a second that take a small part of the CPU of a group: any number kept in flight takes all of it."""

SHORT = {"question": "What is 12+30?", "right": "42"}
"""With 300m of a CPU, MANY long answers would keep the last of them waiting for more than a minute."""


def example(name: str) -> dict[str, Any]:
    """Return an example as it is in the tree, in the namespace of the stories."""
    text = (CHECKOUT / f"examples/external/{name}.yaml").read_text()
    manifest: dict[str, Any] = yaml.safe_load(text.replace('namespace="default"', f'namespace="{MODEL_NAMESPACE}"'))
    manifest["metadata"]["namespace"] = MODEL_NAMESPACE
    return manifest


@pytest.fixture(scope="module")
def cluster(release: Release) -> Cluster:
    found = release.target.cluster
    if found is None:
        pytest.skip("these stories run metrics-server, KEDA and a Prometheus beside the cluster, which must be ours")
    return found


@pytest.fixture
def external(release: Release, cluster: Cluster) -> Iterator[Deployed]:
    """The example: one group, of which each may use 300m of a CPU."""
    manifest = example("external")
    manifest["spec"]["engine"]["limits"]["drainAcceptSeconds"] = 1
    manifest["spec"]["access"] = {"auth": "None"}  # keys are other stories'
    release.target.apply(manifest)
    deployed = Deployed(release.target, NAME, MODEL_NAMESPACE)
    try:
        deployed.wait_settled("1/1")
        deployed.wait_answers()
        yield deployed
    finally:  # or what it requests of the node would lack in stories behind this one
        deployed.delete()


@contextmanager
def applied(release: Release, manifest: dict[str, Any]) -> Iterator[None]:
    release.target.apply(manifest)
    try:
        yield
    finally:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        release.target.kubectl("delete", kind, name, "-n", MODEL_NAMESPACE, "--timeout=60s")


def assert_only_measured(release: Release, cluster: Cluster, deployed: Deployed, since: datetime) -> None:
    """Assert that the operator wrote neither spec nor scale, that an HPA did, and that the condition says so."""
    active = deployed.condition("ScalingActive")
    assert (active["status"], active["reason"]) == ("False", "ScalingExternal")
    asked = requests(cluster.audit_events(release.user, since=since), since)
    written = [each for each in asked if is_write(each) and is_about(each, MODEL_NAMESPACE, NAME)]
    own = [
        each["objectRef"].get("subresource") for each in written if each["objectRef"]["resource"] == "glmdeployments"
    ]
    assert own, "the operator wrote at least its status"
    assert set(own) == {"status"}
    writers = {each["manager"] for each in managers(deployed) if "f:replicas" in each["fieldsV1"].get("f:spec", {})}
    assert writers == {"kube-controller-manager"}


def managers(deployed: Deployed) -> list[dict[str, Any]]:
    target = deployed.target
    found = target.get("glmd", NAME, "-n", MODEL_NAMESPACE, "--show-managed-fields")
    fields: list[dict[str, Any]] = found["metadata"]["managedFields"]
    return fields


def wait_groups(deployed: Deployed, groups: int, *, timeout_s: float = 240) -> float:
    """Return after how many seconds so many groups were wanted, once they serve and the others are gone."""
    began_s = time.monotonic()
    wait_for(f"{groups} groups wanted", lambda: deployed.spec()["replicas"] == groups, timeout_s=timeout_s)
    wanted_s = time.monotonic() - began_s
    deployed.wait_settled(f"{groups}/{groups}", timeout_s=240)
    return wanted_s


def say(capsys: pytest.CaptureFixture[str], story: str, **seconds: float) -> None:
    with capsys.disabled():
        print(f"\n{json.dumps({'story': story, **{name: round(s, 1) for name, s in seconds.items()}})}")


def test_an_hpa_on_cpu_scales_and_the_operator_writes_nothing(
    release: Release, cluster: Cluster, external: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    hpa, began = example("hpa"), datetime.now(UTC)
    hpa["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = SOON_S
    with metrics_server(cluster), applied(release, hpa):
        with arriving(external, rate=0, **SHORT) as load:
            load.at_once = MANY
            up_s = wait_groups(external, 2)
            load.at_once, load.rate = 0, CALM
            down_s = wait_groups(external, 1)
        assert load.failures == []
        assert_only_measured(release, cluster, external, began)
    say(capsys, "hpa", up_s=up_s, down_s=down_s)


def scraped(cluster: Cluster, *relabelling: dict[str, object]) -> dict[str, Any]:
    """Return the configuration of a Prometheus that scrapes the pods, and relabels what it got."""
    config = pod_discovery_config(cluster, interval_s=2, namespaces=[MODEL_NAMESPACE])
    config["scrape_configs"][0]["metric_relabel_configs"] = list(relabelling)
    return config


@pytest.fixture
def scraping(release: Release, cluster: Cluster) -> Iterator[Prometheus]:
    with prometheus(cluster, scraped(cluster)) as found:
        release.install("--set", f"prometheus.url={found.url}")
        yield found
    release.install()


def test_keda_scales_on_our_metrics_and_holds_without_them(
    release: Release,
    cluster: Cluster,
    scraping: Prometheus,
    external: Deployed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scaled, began = example("scaledobject"), datetime.now(UTC)
    (trigger,) = scaled["spec"]["triggers"]
    trigger["metadata"]["serverAddress"] = scraping.url
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    down["stabilizationWindowSeconds"] = down["policies"][0]["periodSeconds"] = SOON_S
    with keda(cluster), applied(release, scaled):
        with arriving(external, rate=0, **SHORT) as load:
            load.at_once = MANY
            up_s = wait_groups(external, 3)
            scraping.reload(scraped(cluster, {"action": "drop", "source_labels": ["__name__"], "regex": "glm_num_.*"}))
            wait_for("KEDA without series", lambda: reads_metrics(release) == "FailedGetExternalMetric", timeout_s=120)
            assert external.spec()["replicas"] == 3, "no series is no zero"
            scraping.reload(scraped(cluster))
            wait_for("KEDA with series", lambda: reads_metrics(release) == "ValidMetricFound", timeout_s=120)
            load.at_once = FEW
            down_s = wait_groups(external, 1)
            load.at_once = 0
        assert load.failures == []
        assert_only_measured(release, cluster, external, began)
        wait_for("what Prometheus has", lambda: metrics(external) == "MetricsRead", timeout_s=60)
    say(capsys, "keda", up_s=up_s, down_s=down_s)


def reads_metrics(release: Release) -> str:
    """Return the reason of the condition by which KEDA's HPA says whether it has its metric."""
    found = release.target.get("hpa", f"keda-hpa-{NAME}", "-n", MODEL_NAMESPACE)["status"]["conditions"]
    return str(next(each["reason"] for each in found if each["type"] == "ScalingActive"))


def metrics(deployed: Deployed) -> str:
    return str(deployed.condition("MetricsAvailable")["reason"])
