"""What is shown of a deployment: its status, and over it what its groups measure just now. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from glm_operator.api.policy import Policy, Reasoning
from glm_operator.api.slo import SIGNALS, Slo
from glm_operator.cli.status.samples import Samples
from glm_operator.manifest import Manifest, name_of
from glm_operator.status import texts

SHOWN_CONDITIONS = (
    "Ready",
    "Degraded",
    "GatewayReady",
    "MetricsAvailable",
    "ScalingActive",
    "SLOMet",
    "PolicyApplied",
    "SettingsKnown",
)


@dataclass(frozen=True)
class GroupView:
    """One group. None: not known."""

    name: str
    state: str
    running: int | None = None
    waiting: int | None = None
    oldest_waiting_s: float | None = None
    in_flight_tokens: int | None = None
    kv_usage: float | None = None


@dataclass(frozen=True)
class LatencyView:
    """One threshold of a class, and the latency that is held against it. Texts as in 420ms."""

    slo_class: str
    signal: str
    percentile: int
    latency: str | None
    promised: str
    met: bool | None


@dataclass(frozen=True)
class ClassView:
    """One class."""

    name: str
    attainment: str | None
    budget_left: str | None
    infeasible: str | None


@dataclass(frozen=True)
class ThinkingView:
    """What spec.reasoning says, and what became of chats since the first look. None: not known, or none came."""

    mode: str  # Auto, Enabled, Disabled or Template
    auto_threshold: float
    visibility: str
    chats: int | None = None
    thought: float | None = None  # share of them
    auto_chats: int | None = None
    auto_thought: float | None = None  # share of those that auto decided about


@dataclass(frozen=True)
class ConditionView:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class View:
    """Everything that is shown."""

    namespace: str
    name: str
    ready: str
    mode: str
    desired: int | None
    current: int | None
    starting: int | None
    limited_by: str | None
    message: str | None
    source: str | None
    groups: Sequence[GroupView]
    latencies: Sequence[LatencyView]
    classes: Sequence[ClassView]
    overall: Mapping[str, str]
    thinking: ThinkingView | None  # None: the spec's cannot be read
    signals: Sequence[Mapping[str, Any]]  # as in the status, with age_s
    history: Sequence[Mapping[str, Any]]  # as in the status, newest first
    conditions: Sequence[ConditionView]
    cut_requests: int | None  # that the end of a drain ended with an error, so far; None: no gateway tells
    note: str  # how old the numbers are

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def view(body: Manifest, samples: Samples, now: datetime, note: str) -> View:
    """Return what to show. samples: empty where the pods cannot be asked; then the status' numbers are shown."""
    status = body.get("status") or {}
    scaling, slo = status.get("scaling") or {}, _slo(body)
    fared = {each["name"]: each for each in (status.get("slo") or {}).get("classes") or []}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    return View(
        namespace=body["metadata"]["namespace"],
        name=name_of(body),
        ready=status.get("ready", "0/0"),
        mode=scaling.get("mode") or "Disabled",
        desired=scaling.get("desired"),
        current=(body.get("spec") or {}).get("replicas", 1),
        starting=scaling.get("starting"),
        limited_by=scaling.get("limitedBy"),
        message=scaling.get("message"),
        source=scaling.get("source"),
        groups=[_group(each, samples) for each in status.get("groups") or []],
        latencies=_latencies(slo, fared, samples),
        classes=[_class(each.name, fared.get(each.name, {}), samples) for each in slo.classes],
        overall=dict(status.get("latency") or {}),
        thinking=_thinking(body, samples),
        signals=[_aged(each, now) for each in scaling.get("signals") or []],
        history=list(scaling.get("history") or []),
        conditions=[_condition(conditions[kind]) for kind in SHOWN_CONDITIONS if kind in conditions],
        cut_requests=(status.get("gateway") or {}).get("cutRequests"),
        note=note,
    )


def _slo(body: Manifest) -> Slo:
    try:
        return Slo.model_validate((body.get("spec") or {}).get("slo") or {})
    except ValidationError:
        return Slo()


def _thinking(body: Manifest, samples: Samples) -> ThinkingView | None:
    spec = body.get("spec") or {}
    try:
        policy = Policy.model_validate({part: spec[part] for part in Policy.model_fields if spec.get(part) is not None})
    except ValidationError:
        return None
    reasoning, decided = policy.reasoning or Reasoning(), samples.decisions()
    chats = None if decided is None else sum(decided.values())
    auto = None if decided is None else sum(count for (_, by), count in decided.items() if by == "auto")
    thought = sum(count for (mode, _), count in (decided or {}).items() if mode == "enabled")
    return ThinkingView(
        mode=reasoning.default or "Template",
        auto_threshold=reasoning.auto_threshold,
        visibility=reasoning.visibility,
        chats=None if chats is None else round(chats),
        thought=thought / chats if chats else None,
        auto_chats=None if auto is None else round(auto),
        auto_thought=(decided or {}).get(("enabled", "auto"), 0.0) / auto if auto else None,
    )


def _group(group: Mapping[str, Any], samples: Samples) -> GroupView:
    found = samples.gauges(group["name"])

    def whole(name: str) -> int | None:
        return round(found[name]) if name in found else None

    return GroupView(
        name=group["name"],
        state=group.get("state", ""),
        running=whole("running"),
        waiting=whole("waiting"),
        oldest_waiting_s=found.get("oldest_waiting_s"),
        in_flight_tokens=whole("in_flight_tokens"),
        kv_usage=found.get("kv_usage"),
    )


def _latencies(slo: Slo, fared: Mapping[str, Mapping[str, Any]], samples: Samples) -> list[LatencyView]:
    shown = []
    for each in slo.classes:
        said = fared.get(each.name, {})
        for signal in SIGNALS:
            promised = each.thresholds.get(signal)
            if promised is None:
                continue
            live = samples.latency(each.name, signal, each.percentile)
            latency = texts.seconds(live) if live is not None else said.get(signal)
            met = live <= promised if live is not None else said.get("met")
            shown.append(LatencyView(each.name, signal, each.percentile, latency, texts.seconds(promised), met))
    return shown


def _class(name: str, said: Mapping[str, Any], samples: Samples) -> ClassView:
    live = samples.attainment(name)
    attainment = texts.share(live) if live is not None else said.get("attainment")
    return ClassView(name, attainment, said.get("budgetLeft"), said.get("infeasible"))


def _aged(signal: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    measured_at = signal.get("measuredAt")
    age_s = round((now - datetime.fromisoformat(measured_at)).total_seconds()) if measured_at else None
    return {**signal, "age_s": age_s}


def _condition(found: Mapping[str, Any]) -> ConditionView:
    return ConditionView(*(str(found.get(key, "")) for key in ("type", "status", "reason", "message")))
