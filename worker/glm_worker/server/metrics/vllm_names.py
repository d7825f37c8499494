"""The same measurements under vLLM's names, so that dashboards, autoscalers and gateways made for it work unchanged."""

from collections.abc import Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

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
    "glm_prefix_cache_queries": "vllm:prefix_cache_queries",
    "glm_prefix_cache_hits": "vllm:prefix_cache_hits",
    "glm_finished_requests": "vllm:request_success",
}
"""Family names without the `_total` of counters."""

_RENAMED_LABELS = {"model": "model_name", "finish_reason": "finished_reason"}
_DROPPED_LABELS = ("kind",)  # vLLM has no such thing; the series are added up
_ENGINE = "0"  # vLLM numbers the engines of a server; here there is one


def twin(family: Metric) -> Metric | None:
    """Return a metric family under its vLLM name with the same values, or None when vLLM has no such thing.

    A histogram must come without classes of requests, whose edges differ: vLLM knows none.
    """
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


def cache_config(model: str, *, block_size: int, num_blocks: int) -> Metric:
    """Return the family by which routers learn how large the KV cache is: its numbers are labels."""
    labels = ["engine", "model_name", "block_size", "num_gpu_blocks"]
    family = GaugeMetricFamily(
        "vllm:cache_config_info",
        "Always 1. Labels: tokens of a KV block, and blocks of the cache; 0 blocks before the first generation serves.",
        labels=labels,
    )
    family.add_metric([_ENGINE, model, str(block_size), str(num_blocks)], 1)
    return family
