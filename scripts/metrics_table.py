"""Every metric of workers, gateways and operator as docs/metrics.md, below a head written by hand.

A metric that is added to one of them appears by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics_gateway import gateway_families, gateway_identity
from prometheus_client.metrics_core import Metric

from glm_operator.telemetry import Telemetry as OperatorTelemetry
from glm_worker.messages import Slo, SloClass
from glm_worker.server.metrics.telemetry import Gauges
from glm_worker.server.metrics.telemetry import Telemetry as ServerTelemetry
from glm_worker.settings import read_settings
from glm_worker.supervisor.evidence.history import History
from glm_worker.supervisor.management.telemetry import FollowerTelemetry
from glm_worker.supervisor.management.telemetry import Telemetry as LeaderTelemetry

HEAD = Path(__file__).with_name("metrics_head.md")
GATEWAY = (
    "Each pod of a gateway counts for itself: add up over pods. Series of a store and of an audit log are there where "
    "there is one."
)
COLUMNS = "| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n"
UNITS = (
    ("timestamp_seconds", "unix time, s"),
    ("seconds", "s"),
    ("ratio", "1"),
    ("perc", "1"),
    ("bytes", "bytes"),
    ("tokens", "tokens"),
    ("prompt_tokens_received", "tokens"),
    ("tokens_waiting", "tokens"),
    ("tokens_left", "tokens"),
    ("prefix_cache_queries", "tokens"),
    ("prefix_cache_hits", "tokens"),
    ("connections", "connections"),
    ("requests", "requests"),
    ("requests_received", "requests"),
    ("requests_running", "requests"),
    ("requests_waiting", "requests"),
    ("requests_held", "requests"),
    ("requests_cut", "requests"),
    ("drain_cuts", "requests"),
    ("requests_counted_here", "requests"),
    ("_shed", "requests"),
    ("limit_refusals", "requests"),
    ("groups_ready", "groups"),
    ("groups_plain", "groups"),
    ("groups_ejected", "groups"),
    ("gateway_cost", "of the prices"),
    ("steps", "steps"),
    ("groups", "groups"),
    ("gpus", "GPUs"),
    ("gpu_budget", "GPUs"),
)
"""By the end of a name."""


@dataclass(frozen=True)
class Section:
    """One table. identity: labels that all its series have besides, as they say whose they are."""

    title: str
    families: Iterable[Metric]
    text: str = ""
    identity: Sequence[str] = ()


def metrics_markdown() -> str:
    """Return the whole page."""
    of_server = _server()
    leader = LeaderTelemetry().families("starting", History(), server_answers=True)
    follower = FollowerTelemetry({}, 1).families(is_connected=True, is_refused=False)
    operator = OperatorTelemetry(age_s=float, queue_length=int).registry.collect()
    of_group = list(read_settings(model="-").identity)
    sections = (
        Section("Worker: HTTP server", [family for family in of_server if not _is_vllms(family)], identity=of_group),
        Section(
            "Worker: HTTP server, under vLLM's names",
            [family for family in of_server if _is_vllms(family)],
            "The same measurements for what is made for vLLM. Series that it does not tell apart are added up.",
            of_group,
        ),
        Section("Worker: the group, from its first pod", leader, identity=of_group),
        Section("Worker: other pods of a group", follower, identity=of_group),
        Section("Gateway", gateway_families(), GATEWAY, gateway_identity()),
        Section("Operator", operator, "Of passes and of the autoscaler. Series of a deployment come and go with it."),
    )
    return HEAD.read_text(encoding="utf-8") + "".join(map(_section, sections))


def _section(section: Section) -> str:
    named = ", ".join(f"`{label}`" for label in section.identity)
    text = " ".join(filter(None, (section.text, f"All have the labels {named}." if named else "")))
    return f"\n## {section.title}\n\n{text}\n\n{COLUMNS}{''.join(sorted(map(_row, section.families)))}"


def _is_vllms(family: Metric) -> bool:
    return family.name.startswith("vllm:")


def _server() -> list[Metric]:
    """Return the families of a server that was put a promise of everything: series of classes are there, too."""
    telemetry = ServerTelemetry("")
    everything = SloClass(name="all", thresholds_s={"ttft": 1, "ttfa": 1, "itl": 1, "e2e": 1}, objective=0.99)
    telemetry.promise(Slo([everything]))
    return telemetry.families(Gauges())


def _row(family: Metric) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in _labels(family))
    meaning = family.documentation.replace("|", "\\|")
    return f"| `{name}` | {family.type} | {_unit(family.name)} | {labels} | {meaning} |\n"


def _labels(family: Metric) -> list[str]:
    """Return the labels of a family: of its series, or, while it has none, those that it was declared with."""
    found = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    return list(found) or list(getattr(family, "_labelnames", ()))


def _unit(name: str) -> str:
    return next((unit for end, unit in UNITS if name.endswith(end)), "")
