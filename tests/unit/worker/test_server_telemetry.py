"""The metrics as text: all there from the start, and the same under vLLM's names."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from glm_worker.messages import StepDone
from glm_worker.server.telemetry import Gauges, Telemetry
from glm_worker.server.vllm_names import TWINS

HISTOGRAMS = (
    "glm_time_to_first_token_seconds",
    "glm_time_to_first_answer_token_seconds",
    "glm_inter_token_latency_seconds",
    "glm_e2e_request_latency_seconds",
    "glm_request_queue_time_seconds",
)
OTHERS = (
    "glm_num_requests_running",
    "glm_num_requests_waiting",
    "glm_num_tokens_waiting",
    "glm_kv_cache_usage_ratio",
    "glm_prompt_tokens_total",
    "glm_engine_steps_total",
    "glm_engine_last_step_timestamp_seconds",
    "glm_preemptions_total",
)


def samples(telemetry: Telemetry, gauges: Gauges | None = None) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(telemetry.exposition(gauges or Gauges())):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, "a series appears once"
            series[labels] = sample.value
    return found


def a_step(preemptions: int = 0) -> StepDone:
    return StepDone(
        generation="g",
        outputs=[],
        step=1,
        began_s=0.0,
        num_running=0,
        num_waiting=0,
        num_tokens_waiting=0,
        kv_blocks_used=0,
        num_preemptions=preemptions,
    )


def test_every_series_exists_from_the_start() -> None:
    found = samples(Telemetry("m"))
    for name in HISTOGRAMS:
        assert found[f"{name}_count"] == {frozenset({("model", "m"), ("slo_class", "default")}): 0}
        assert len(found[f"{name}_bucket"]) > 10
    for name in OTHERS:
        assert found[name] == {frozenset({("model", "m")}): 0}
    kinds = {dict(labels)["kind"] for labels in found["glm_generation_tokens_total"]}
    outcomes = {dict(labels)["outcome"] for labels in found["glm_requests_total"]}
    assert kinds == {"reasoning", "answer"}
    assert outcomes == {"finished", "cancelled", "refused", "failed"}
    assert not any(name.endswith("_created") for name in found)


@pytest.mark.parametrize(("ours", "theirs"), TWINS.items())
def test_twins_have_the_same_values(ours: str, theirs: str) -> None:
    telemetry = Telemetry("m")
    telemetry.time_to_first_token.observe(0.3)
    telemetry.prompt_tokens.inc(5)
    telemetry.reasoning_tokens.inc(3)
    telemetry.answer_tokens.inc(4)
    telemetry.finished("length")
    found = samples(telemetry, Gauges(1, 2, 3, 0.5))
    suffixes = [
        name.removeprefix(ours)
        for name in found
        if name in (ours, *(ours + end for end in ("_total", "_sum", "_count", "_bucket")))
    ]
    assert suffixes
    for suffix in suffixes:
        assert sum(found[ours + suffix].values()) == sum(found[theirs + suffix].values())
        for labels in found[theirs + suffix]:
            assert {"model_name", "engine"} <= set(dict(labels)) <= {"model_name", "engine", "le", "finished_reason"}


def test_series_that_vllm_does_not_tell_apart_are_added_up() -> None:
    telemetry = Telemetry("m")
    telemetry.reasoning_tokens.inc(3)
    telemetry.answer_tokens.inc(4)
    assert samples(telemetry)["vllm:generation_tokens_total"] == {frozenset({("model_name", "m"), ("engine", "0")}): 7}


def test_preemptions_are_added_up_over_generations() -> None:
    telemetry = Telemetry("m")
    for preemptions in (0, 2, 2, 3):
        telemetry.step(a_step(preemptions), 1700000000.0)
    telemetry.generation_began()
    telemetry.step(a_step(1), 1700000001.5)
    found = samples(telemetry)
    labels = frozenset({("model", "m")})
    assert found["glm_preemptions_total"][labels] == 4
    assert found["glm_engine_steps_total"][labels] == 5
    assert found["glm_engine_last_step_timestamp_seconds"][labels] == 1700000001.5
