"""A gateway that runs by a file with everything exposes what docs/metrics.md says, no more and no less."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from glm_gateway.config.secrets import Secrets
from glm_gateway.config.source import ConfigSource
from glm_gateway.metrics.classes import TIMINGS as OURS
from glm_gateway.runtime.serve import Runtime
from glm_operator.cluster.metrics.queries import OWN_LABELS
from glm_worker.server.metrics.class_metrics import TIMINGS as WORKERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
EVERYTHING: dict[str, Any] = {
    "auth": {"mode": "None"},
    "models": [
        {
            "name": "GLM-4.5-Air",
            "deployment": "chat",
            "groups": {"file": "/nowhere", "namespace": "models"},
            "slo": {"classes": [{"name": "fast", "thresholds_s": {"ttft": 1, "ttfa": 1, "itl": 1, "e2e": 1}}]},
        }
    ],
    "upstreams": [{"name": "far", "url": "http://127.0.0.1:9/v1", "model": "far"}],
    "store": {"url": "redis://127.0.0.1:9/0"},
}


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[str]:
    """What it exposes."""
    file = tmp_path / "gateway.json"
    audit = {"audit": {"file": str(tmp_path / "audit")}, "usage": {"folder": str(tmp_path / "usage")}}
    file.write_text(json.dumps(EVERYTHING | audit))
    async with contextlib.AsyncExitStack() as stack:
        secrets = Secrets("t" * 16, b"s" * 32)
        runtime = await Runtime.started(ConfigSource(file), secrets, stack)
        yield runtime.gateway.telemetry.exposition().decode()


def exposed(page: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))


def documented() -> dict[str, set[str]]:
    """Names of the table, each with its labels."""
    table = (DOCS / "metrics.md").read_text().partition("\n## Gateway\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| \w+ \| [^|]*\| ([^|]*) \|", table, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


async def test_what_a_gateway_exposes_is_documented_and_what_is_documented_is_exposed(page: str) -> None:
    assert len(documented()) > 25
    assert exposed(page) == set(documented())


async def test_series_have_the_labels_that_are_documented_and_say_whose_they_are(page: str) -> None:
    known = documented()
    for family in text_string_to_metric_families(page):
        name = family.name + ("_total" if family.type == "counter" else "")
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == known[name] | {"namespace", "deployment"}, name
            assert (sample.labels["namespace"], sample.labels["deployment"]) == ("models", "chat"), name


def test_every_label_has_a_bound_that_is_told() -> None:
    head = (DOCS / "metrics.md").read_text().partition("no client can make a series.")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", head, re.MULTILINE)
    bounded = {label for row in rows for label in re.findall(r"`(\w+)`", row)}
    assert bounded == {label for labels in documented().values() for label in labels}


async def test_a_metric_that_another_document_names_exists(page: str) -> None:
    names = exposed(page) | {f"{name}_{end}" for name in exposed(page) for end in ("bucket", "count", "sum")}
    for path in [*DOCS.glob("*.md"), *(DOCS / "runbooks").glob("*.md")]:
        named = set(re.findall(r"\bglm_gateway_[a-z0-9_]*[a-z0-9]\b(?!\.)", path.read_text())) - {"glm_gateway"}
        assert named <= names, path.name


def test_times_have_the_names_and_edges_of_the_workers_so_that_either_can_be_read() -> None:
    assert OURS.keys() <= WORKERS.keys()
    for time, ours in OURS.items():
        assert (ours.buckets, ours.signal) == (WORKERS[time].buckets, WORKERS[time].signal)


async def test_labels_that_the_operator_reads_by_are_those_of_a_gateway(page: str) -> None:
    classes = [
        sample
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "slo_class" in sample.labels
    ]
    assert {label for sample in classes for label in sample.labels} <= OWN_LABELS
    assert {sample.labels["slo_class"] for sample in classes} == {"fast", "default"}
