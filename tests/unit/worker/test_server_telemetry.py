"""The metrics as text: all there from the start, and the same under vLLM's names."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from glm_worker.messages import Slo, SloClass, StepDone
from glm_worker.server.metrics.telemetry import Gauges, Telemetry
from glm_worker.server.metrics.vllm_names import TWINS
from glm_worker.server.slo import NoHeaders

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
    "glm_oldest_waiting_seconds",
    "glm_prompt_tokens_waiting",
    "glm_prompt_tokens_left",
    "glm_in_flight_tokens",
    "glm_prefill_tokens_total",
    "glm_prefill_busy_seconds_total",
    "glm_decode_tokens_total",
    "glm_decode_steps_total",
    "glm_decode_busy_seconds_total",
    "glm_kv_cache_tokens",
    "glm_max_running_requests",
)
IDENTITY = {"namespace": "models", "deployment": "chat", "group": "chat-g1", "revision": "abc"}


def samples(telemetry: Telemetry, gauges: Gauges | None = None) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(telemetry.exposition(gauges or Gauges())):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, "a series appears once"
            series[labels] = sample.value
    return found


def a_step(preemptions: int = 0, **fields: Any) -> StepDone:
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
        **fields,
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
    modes = {dict(labels)["thinking"] for labels in found["glm_thinking_requests_total"]}
    assert modes == {"enabled", "disabled"}
    assert found["glm_expert_load_imbalance_ratio"] == {frozenset({("model", "m")}): 1}
    assert kinds == {"reasoning", "answer"}
    assert outcomes == {"finished", "cancelled", "refused", "failed"}
    assert not any(name.endswith("_created") for name in found)


@pytest.mark.parametrize(("ours", "theirs"), TWINS.items())
def test_twins_have_the_same_values(ours: str, theirs: str) -> None:
    telemetry = Telemetry("m")
    telemetry.class_of(thinking=True, headers=NoHeaders()).observe("time_to_first_token", 0.3)
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


def test_every_series_says_whose_it_is() -> None:
    telemetry = Telemetry("m", IDENTITY)
    telemetry.promise(Slo([SloClass(name="fast", thresholds_s={"ttft": 0.6}, objective=0.99)]))
    found = samples(telemetry)
    assert "vllm:num_requests_waiting" in found
    for name, series in found.items():
        for labels in series:
            assert IDENTITY.items() <= dict(labels).items(), name


def test_the_text_of_a_class_is_what_prometheus_expects() -> None:
    telemetry = Telemetry("m", {"group": "g0"})
    telemetry.promise(Slo([SloClass(name="fast", thresholds_s={"itl": 0.06}, objective=0.99)]))
    telemetry.class_of(thinking=False, headers=NoHeaders()).observe("inter_token_latency", 0.055)
    lines = telemetry.exposition(Gauges()).splitlines()
    name, labels = "glm_inter_token_latency_seconds", 'model="m",slo_class="fast"'
    own = [line for line in lines if line.startswith(name) and 'slo_class="fast"' in line]
    assert own[0] == f'{name}_bucket{{group="g0",le="0.001",{labels}}} 0.0'
    assert own[9:14] == [
        f'{name}_bucket{{group="g0",le="{edge}",{labels}}} {count}'
        for edge, count in (("0.03", 0.0), ("0.035", 0.0), ("0.05", 0.0), ("0.06", 1.0), ("0.075", 1.0))
    ]
    assert own[-2:] == [f'{name}_count{{group="g0",{labels}}} 1.0', f'{name}_sum{{group="g0",{labels}}} 0.055']
    assert [line for line in lines if line.startswith(f"# TYPE {name} ")] == [f"# TYPE {name} histogram"]
    assert 'glm_slo_threshold_seconds{group="g0",model="m",signal="itl",slo_class="fast"} 0.06' in lines


def test_what_steps_did_is_added_up() -> None:
    telemetry = Telemetry("m")
    telemetry.step(a_step(prefill_tokens=100, prefill_s=0.2, decode_tokens=3, decode_s=0.1), 1.0)
    telemetry.step(a_step(decode_tokens=4, decode_s=0.1), 2.0)
    telemetry.step(a_step(prefill_tokens=50, prefill_s=0.1), 3.0)
    found = {name: next(iter(series.values())) for name, series in samples(telemetry).items()}
    assert found["glm_prefill_tokens_total"] == 150
    assert found["glm_prefill_busy_seconds_total"] == pytest.approx(0.3)
    assert found["glm_decode_tokens_total"] == 7
    assert found["glm_decode_steps_total"] == 2
    assert found["glm_decode_busy_seconds_total"] == pytest.approx(0.2)


def test_expert_imbalance_is_of_the_reports_of_the_last_minute() -> None:
    now = [100.0]
    telemetry = Telemetry("m", clock=lambda: now[0])
    telemetry.step(a_step(expert_tokens_by_rank=[30, 10]), 1.0)
    telemetry.step(a_step(), 2.0)
    assert samples(telemetry)["glm_expert_load_imbalance_ratio"] == {frozenset({("model", "m")}): 1.5}
    now[0] += 61
    assert samples(telemetry)["glm_expert_load_imbalance_ratio"] == {frozenset({("model", "m")}): 1}


def test_the_size_of_the_cache_is_told_as_tokens_and_as_routers_read_it() -> None:
    found = samples(Telemetry("m"), Gauges(block_size=16, num_blocks=100))
    assert list(found["glm_kv_cache_tokens"].values()) == [1600]
    labels = {"engine": "0", "model_name": "m", "block_size": "16", "num_gpu_blocks": "100"}
    assert found["vllm:cache_config_info"] == {frozenset(labels.items()): 1}


@pytest.mark.parametrize("kernels", ["", "torch", "cpu-avx512bf16"])
def test_what_computes_the_layers_is_a_label(kernels: str) -> None:
    found = samples(Telemetry("m"), Gauges(kernels=kernels))
    assert found["glm_kernels_info"] == {frozenset({("kernels", kernels), ("model", "m")}): 1}
