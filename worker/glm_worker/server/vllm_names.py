"""The same measurements under vLLM's names, so that dashboards, autoscalers and gateways made for it work unchanged."""

from collections.abc import Mapping

from prometheus_client.metrics_core import Metric

TWINS: Mapping[str, str] = {
    "glm_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "glm_inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
    "glm_e2e_request_latency_seconds": "vllm:e2e_request_latency_seconds",
    "glm_request_queue_time_seconds": "vllm:request_queue_time_seconds",
    "glm_num_requests_running": "vllm:num_requests_running",
    "glm_num_requests_waiting": "vllm:num_requests_waiting",
    "glm_kv_cache_usage_ratio": "vllm:kv_cache_usage_perc",
    "glm_prompt_tokens": "vllm:prompt_tokens",
    "glm_generation_tokens": "vllm:generation_tokens",
    "glm_preemptions": "vllm:num_preemptions",
    "glm_finished_requests": "vllm:request_success",
}
"""Family names without the `_total` of counters."""

_RENAMED_LABELS = {"model": "model_name", "finish_reason": "finished_reason"}
_DROPPED_LABELS = ("slo_class", "kind")  # vLLM has none of them; their series are added up
_ENGINE = "0"  # vLLM numbers the engines of a server; here there is one


def twin(family: Metric) -> Metric | None:
    """Return a metric family under its vLLM name with the same values, or None when vLLM has no such thing."""
    name = TWINS.get(family.name)
    if name is None:
        return None
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in family.samples:
        labels = {
            _RENAMED_LABELS.get(key, key): value for key, value in sample.labels.items() if key not in _DROPPED_LABELS
        }
        series = (name + sample.name.removeprefix(family.name), tuple({"engine": _ENGINE, **labels}.items()))
        sums[series] = sums.get(series, 0.0) + sample.value
    result = Metric(name, family.documentation, family.type)
    for (sample_name, labels_of), value in sums.items():
        result.add_sample(sample_name, dict(labels_of), value)
    return result
