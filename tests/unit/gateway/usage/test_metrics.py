"""Metrics of usage say who used what, and stay few however many keys there are."""

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from glm_gateway.limits.tokens import PICO
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.metrics import MAX_KEYS, OTHER, UsageMetrics


def a_registry(metrics: UsageMetrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


def entry(key: str) -> Entry:
    return Entry(
        id=key, at=0, key=key, model="m", api="openai", outcome="finished", prompt=5, cached=2, answer=7, cost=PICO // 4
    )


def test_tokens_and_cost_are_counted_by_model_and_key() -> None:
    metrics = UsageMetrics()
    registry = a_registry(metrics)
    for _ in range(2):
        metrics.count(entry("alice"))
    whose = {"model": "m", "key": "alice"}
    found = {
        kind: registry.get_sample_value("glm_gateway_tokens_total", {**whose, "kind": kind})
        for kind in ("prompt", "cached", "answer", "thinking")
    }
    assert found == {"prompt": 10, "cached": 4, "answer": 14, "thinking": 0}
    assert registry.get_sample_value("glm_gateway_cost_total", whose) == 0.5


def test_requests_and_errors_are_counted_by_model_and_key() -> None:
    metrics = UsageMetrics()
    registry = a_registry(metrics)
    for outcome in ("finished", "failed", "failed", "refused"):
        metrics.count(replace(entry("alice"), outcome=outcome))
    metrics.count(entry("bob"))
    found = {
        (key, outcome): registry.get_sample_value(
            "glm_gateway_key_requests_total", {"model": "m", "key": key, "outcome": outcome}
        )
        for key in ("alice", "bob")
        for outcome in ("finished", "failed", "refused")
    }
    assert found == {
        ("alice", "finished"): 1,
        ("alice", "failed"): 2,
        ("alice", "refused"): 1,
        ("bob", "finished"): 1,
        ("bob", "failed"): None,
        ("bob", "refused"): None,
    }


def test_keys_beyond_the_bound_are_counted_together() -> None:
    metrics = UsageMetrics()
    registry = a_registry(metrics)
    for number in range(MAX_KEYS + 5):
        metrics.count(entry(f"k{number}"))
    metrics.count(entry("k0"))
    assert registry.get_sample_value("glm_gateway_cost_total", {"model": "m", "key": OTHER}) == 5 / 4
    assert registry.get_sample_value("glm_gateway_cost_total", {"model": "m", "key": "k0"}) == 0.5


def test_what_limits_refuse_is_counted_apart_from_what_they_would_have_refused() -> None:
    metrics = UsageMetrics()
    registry = a_registry(metrics)
    for only_counts in (True, False, True):
        metrics.refuse("alice", "budget", only_counts=only_counts)
    found = [
        registry.get_sample_value(
            "glm_gateway_limit_refusals_total", {"key": "alice", "limit": "budget", "shadow": shadow}
        )
        for shadow in ("true", "false")
    ]
    assert found == [2, 1]
