"""Grafana's dashboards as tests read them: as values, as JSON, and the series that there may be."""

import functools
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
from prometheus_client.metrics_core import Metric

from glm_operator.telemetry import Telemetry as OperatorTelemetry
from glm_worker.messages import Slo, SloClass
from glm_worker.server.metrics.telemetry import Gauges
from glm_worker.server.metrics.telemetry import Telemetry as ServerTelemetry
from glm_worker.supervisor.evidence.history import History
from glm_worker.supervisor.management.telemetry import FollowerTelemetry
from glm_worker.supervisor.management.telemetry import Telemetry as LeaderTelemetry

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "charts/glm-operator/dashboards"
OF_GROUP = {"namespace", "deployment", "group", "revision"}
OF_TARGET = {"instance", "job"}


@functools.cache
def generator() -> Any:
    """Return scripts/dashboards.py as a module."""
    scripts = str(ROOT / "scripts")
    if scripts not in sys.path:
        sys.path.append(scripts)
    return importlib.import_module("dashboards")


def boards() -> Iterable[Any]:
    """Return every dashboard as a value of scripts/grafana/board.py."""
    found: Iterable[Any] = generator().BOARDS
    return found


def committed(slug: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{slug}.json").read_text())
    return loaded


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def with_variables(expr: str, **values: str) -> str:
    """Return an expression as Grafana sends it: every deployment unless values say otherwise."""
    given = {"namespace": ".+", "deployment": ".+", "slo_class": ".+"}
    given |= {"__rate_interval": "15s", "__interval": "5s", "__interval_ms": "5000", "__range": "10m"} | values
    for name in sorted(given, key=len, reverse=True):
        expr = expr.replace(f"${name}", given[name])
    return expr


def selectors(expr: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield every selector of series in an expression."""

    def below(node: Any) -> Iterator[Any]:
        yield node
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            child = getattr(node, name, None)
            if isinstance(child, promql_parser.Expr):
                yield from below(child)
        for child in getattr(node, "args", None) or []:
            if isinstance(child, promql_parser.Expr):
                yield from below(child)

    for node in below(promql_parser.parse(expr)):
        if isinstance(node, promql_parser.VectorSelector):
            yield node


@functools.cache
def series() -> dict[str, set[str]]:
    """Return the labels of every series that workers, gateways and operator can have, by its name: as registered."""
    server = ServerTelemetry("")
    everything = SloClass(name="all", thresholds_s={"ttft": 1, "ttfa": 1, "itl": 1, "e2e": 1}, objective=0.99)
    server.promise(Slo([everything]))
    of_worker = [
        *server.families(Gauges()),
        *LeaderTelemetry().families("starting", History(), server_answers=True),
        *FollowerTelemetry({}, 1).families(is_connected=True, is_refused=False),
    ]
    of_operator = OperatorTelemetry(age_s=float, queue_length=int).registry.collect()
    generator()
    gateway = importlib.import_module("metrics_gateway")
    of_gateway, whose = gateway.gateway_families(), set(gateway.gateway_identity())
    found: dict[str, set[str]] = {}
    for families, more in (
        (of_worker, OF_GROUP | OF_TARGET),
        (of_gateway, whose | OF_TARGET),
        (of_operator, OF_TARGET),
    ):
        for family in families:
            for name, labels in _samples(family):
                found.setdefault(name, set()).update(labels | more)
    return found


def _samples(family: Metric) -> Iterator[tuple[str, set[str]]]:
    """Yield names and labels of a family's series; as declared, while it has none."""
    declared = set(getattr(family, "_labelnames", ()))
    yield family.name + ("_total" if family.type == "counter" else ""), declared
    for sample in family.samples:
        yield sample.name, declared | set(sample.labels)


def anchors() -> set[str]:
    """Return the anchors of docs/operations.md."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
