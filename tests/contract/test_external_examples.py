"""The HPA and the ScaledObject beside the examples scale our kind, on what pods ask for and workers measure."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/external"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return found


@pytest.mark.parametrize("name", ["hpa", "scaledobject"])
def test_it_scales_the_deployment_beside_it(name: str) -> None:
    scaled, target = read("external"), read(name)["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": scaled["apiVersion"], "kind": scaled["kind"], "name": scaled["metadata"]["name"]}
    assert scaled["spec"]["scaling"]["mode"] == "External"
    assert "replicas" not in scaled["spec"], "applying it again would take back what was scaled"


def test_pods_ask_for_the_cpu_that_utilization_is_a_share_of() -> None:
    (metric,) = read("hpa")["spec"]["metrics"]
    assert metric["resource"]["name"] in read("external")["spec"]["hardware"]["resources"]["requests"]


def test_the_query_of_keda_is_about_metrics_of_workers() -> None:
    (trigger,) = read("scaledobject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    promql_parser.parse(query)
    names = set(re.findall(r"\bglm_\w+", query))
    assert names
    page = (ROOT / "docs/metrics.md").read_text()
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
    assert trigger["metadata"]["ignoreNullValues"] == "false", "by default no series is read as 0"
