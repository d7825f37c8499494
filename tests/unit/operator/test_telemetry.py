"""The operator's own metrics: of each deployment all or none."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.signals import Input, State
from glm_operator.status.measured import Measured
from glm_operator.telemetry import Telemetry
from unit.operator.measured_builders import a_class, a_decision, measured, value

CHAT = {"namespace": "models", "deployment": "chat"}


def a_registry(
    *, looks: dict[Any, Measured] | None = None, statuses: dict[Any, Any] | None = None
) -> CollectorRegistry:
    return Telemetry(
        age_s=lambda: 0.0,
        queue_length=lambda: 0,
        measured=lambda: looks or {},
        statuses=lambda: statuses or {},
        gpu_budgets={"models": 16},
    ).registry


def names(registry: CollectorRegistry, prefix: str) -> set[str]:
    return {sample.name for family in registry.collect() for sample in family.samples if sample.name.startswith(prefix)}


def a_look(**changes: Any) -> Measured:
    inputs = {"needed, groups": value(2.4, time.time() - 7), "kv, %": Input(State.UNKNOWN)}
    decision = a_decision(4, 2, cause="Demand", limited_by="Max", inputs=inputs, infeasible={"slow": "too long"})
    return measured(
        decision=decision,
        classes=(a_class("chat"), a_class("slow")),
        situation=Situation(spec_groups=2, serving=1, starting=1, gpus_per_group=8),
        static_groups=5,
        unpromised=frozenset({"chat-g0"}),
        decided={("Demand", "up"): 3},
        sampled_at_s=time.time() - 4,
        **changes,
    )


def test_the_end_of_certificates_is_told_as_a_time() -> None:
    ends = datetime(2027, 1, 1, tzinfo=UTC)
    registry = Telemetry(age_s=float, queue_length=int, certificates=lambda: {("models", "chat"): ends}).registry
    assert registry.get_sample_value("glm_operator_certificates_end_timestamp_seconds", CHAT) == ends.timestamp()


def test_a_look_is_told_with_its_inputs_and_limits() -> None:
    registry = a_registry(looks={("models", "chat"): a_look()})

    def said(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"glm_autoscaler_{name}", {**CHAT, **labels})

    groups = [said(f"{what}_groups") for what in ("desired", "spec", "serving", "starting", "static")]
    assert groups == [4, 2, 1, 1, 5]
    assert said("gpus") == 16
    assert said("groups_without_promises") == 1
    assert (said("limited", limit="Max"), said("limited", limit="UpRate")) == (1, 0)
    assert said("input", input="needed, groups") == 2.4
    assert 6 < (said("input_age_seconds", input="needed, groups") or 0) < 60
    assert said("input_age_seconds", input="kv, %") == -1
    assert said("input_state", input="kv, %", state="Unknown") == 1
    assert said("input_state", input="kv, %", state="Value") == 0
    assert said("decisions_total", reason="Demand", direction="up") == 3
    assert said("decisions_total", reason="Demand", direction="down") == 0
    assert (said("slo_infeasible", slo_class="slow"), said("slo_infeasible", slo_class="chat")) == (1, 0)
    assert 3 < (said("metrics_age_seconds") or 0) < 60
    assert registry.get_sample_value("glm_autoscaler_namespace_gpu_budget", {"namespace": "models"}) == 16


def test_where_nobody_decides_what_is_wanted_is_what_the_spec_says() -> None:
    look = replace(a_look(), decision=None, sampled_at_s=None)
    registry = a_registry(looks={("models", "chat"): look})
    assert registry.get_sample_value("glm_autoscaler_desired_groups", CHAT) == 2
    assert registry.get_sample_value("glm_autoscaler_metrics_age_seconds", CHAT) == -1
    assert registry.get_sample_value("glm_autoscaler_limited", {**CHAT, "limit": "Max"}) == 0


def test_the_series_of_a_deployment_come_and_go_with_it() -> None:
    looks = {("models", "chat"): a_look()}
    statuses: dict[Any, Any] = {("models", "chat"): {}}
    registry = a_registry(looks=looks, statuses=statuses)
    of_all = names(registry, "glm_")
    looks.clear()
    statuses.clear()
    gone = of_all - names(registry, "glm_")
    assert {name for name in gone if name.startswith("glm_operator_")} == {
        "glm_operator_condition",
        "glm_operator_condition_is_bad",
        "glm_operator_rollout_stuck",
    }
    assert len(gone) == 17
    assert "glm_autoscaler_query_errors_total" in names(registry, "glm_autoscaler_"), "of the process, and always there"


def test_conditions_are_told_one_series_a_status() -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "AllGroupsReady"},
        {"type": "Progressing", "status": "False", "reason": "RolloutStuck"},
    ]
    registry = a_registry(statuses={("models", "chat"): {"conditions": conditions}})

    def holds(kind: str, status: str) -> float | None:
        return registry.get_sample_value("glm_operator_condition", {**CHAT, "type": kind, "status": status})

    assert [holds("Ready", status) for status in ("True", "False", "Unknown")] == [1, 0, 0]
    assert [holds("SLOMet", status) for status in ("True", "False", "Unknown")] == [0, 0, 1]
    assert registry.get_sample_value("glm_operator_rollout_stuck", CHAT) == 1


def test_a_condition_is_bad_by_its_reason_whatever_its_status() -> None:
    conditions = [
        {"type": "GatewayReady", "status": "False", "reason": "GatewayFileRefused"},
        {"type": "Ready", "status": "False", "reason": "GroupsStarting"},
        {"type": "Progressing", "status": "True", "reason": "OfANewerVersion"},
    ]
    registry = a_registry(statuses={("models", "chat"): {"conditions": conditions}})

    def is_bad(kind: str) -> float | None:
        return registry.get_sample_value("glm_operator_condition_is_bad", {**CHAT, "type": kind})

    assert [is_bad(kind) for kind in ("GatewayReady", "Ready", "Progressing", "SLOMet")] == [1, 0, 0, 0]


def test_queries_are_counted_and_their_errors_exist_from_the_start() -> None:
    telemetry = Telemetry(age_s=lambda: 0.0, queue_length=lambda: 0)
    errors = "glm_autoscaler_query_errors_total"
    assert telemetry.registry.get_sample_value(errors, {"reason": "MetricsUnreachable"}) == 0
    telemetry.asked(0.1, None)
    telemetry.asked(4.0, "MetricsUnreachable")
    assert telemetry.registry.get_sample_value(errors, {"reason": "MetricsUnreachable"}) == 1
    assert telemetry.registry.get_sample_value("glm_autoscaler_query_duration_seconds_count") == 2
