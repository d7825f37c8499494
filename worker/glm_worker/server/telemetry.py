"""What the server measures, as Prometheus metrics. The supervisor serves the text on its management port.

Every series exists from the start, so a missing one means a missing worker and never zero.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from glm_worker.messages import StepDone
from glm_worker.server.deltas import FinishReason
from glm_worker.server.journal import OUTCOMES, Outcome
from glm_worker.server.vllm_names import twin

SLO_CLASS = "default"  # the only one until deployments define classes
FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls")
TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
# vLLM's, and finer ones below 10 ms
ITL_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
LATENCY_BUCKETS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip


@dataclass(frozen=True)
class Gauges:
    """What stands now, in the engine and before it."""

    num_running: int = 0
    num_waiting: int = 0
    num_tokens_waiting: int = 0
    kv_cache_usage: float = 0.0


class Telemetry:
    """The metrics of one server. Times are differences of one monotonic clock, in seconds."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self.time_to_first_token = self._histogram(
            "glm_time_to_first_token_seconds", "From arrival of a request to its first token.", TTFT_BUCKETS
        )
        self.time_to_first_answer_token = self._histogram(
            "glm_time_to_first_answer_token_seconds",
            "From arrival to the first token that is no reasoning.",
            TTFT_BUCKETS,
        )
        self.inter_token_latency = self._histogram(
            "glm_inter_token_latency_seconds", "Between two tokens of a request.", ITL_BUCKETS
        )
        self.e2e_latency = self._histogram(
            "glm_e2e_request_latency_seconds", "From arrival of a request to its last token.", LATENCY_BUCKETS
        )
        self.queue_time = self._histogram(
            "glm_request_queue_time_seconds", "From arrival until the engine begins with a request.", TTFT_BUCKETS
        )
        self._running = self._gauge("glm_num_requests_running", "Requests that the engine computes.")
        self._waiting = self._gauge("glm_num_requests_waiting", "Requests that wait for the engine.")
        self._tokens_waiting = self._gauge("glm_num_tokens_waiting", "Prompt tokens of the requests that wait.")
        self._kv_usage = self._gauge("glm_kv_cache_usage_ratio", "KV blocks in use; 1 is full.")
        self.prompt_tokens = self._counter("glm_prompt_tokens", "Tokens of prompts that the engine began with.")
        self.reasoning_tokens, self.answer_tokens = self._counters(
            "glm_generation_tokens", "Tokens generated, thinking and answer apart.", "kind", ("reasoning", "answer")
        )
        self._requests = dict(
            zip(
                OUTCOMES,
                self._counters("glm_requests", "Requests by how they ended.", "outcome", OUTCOMES),
                strict=True,
            )
        )
        finished = self._counters(
            "glm_finished_requests", "Finished requests by finish reason.", "finish_reason", FINISH_REASONS
        )
        self._finished = dict(zip(FINISH_REASONS, finished, strict=True))
        self._steps = self._counter("glm_engine_steps", "Steps of the engine.")
        self._last_step = self._gauge(
            "glm_engine_last_step_timestamp_seconds", "Unix time of the last step; 0: none yet."
        )
        self._preemptions = self._counter("glm_preemptions", "Requests put back to waiting for want of KV blocks.")
        self._preemptions_seen = 0

    def generation_began(self) -> None:
        """The engine's own counts begin anew."""
        self._preemptions_seen = 0

    def step(self, done: StepDone, unix_time: float) -> None:
        """Note one step of the engine."""
        self._steps.inc()
        self._last_step.set(unix_time)
        self._preemptions.inc(max(0, done.num_preemptions - self._preemptions_seen))
        self._preemptions_seen = done.num_preemptions

    def ended(self, outcome: Outcome) -> None:
        """Note how a request ended; once for each."""
        self._requests[outcome].inc()

    def finished(self, reason: FinishReason) -> None:
        self._finished[reason].inc()

    def exposition(self, gauges: Gauges) -> str:
        """Return all metrics as Prometheus text."""
        self._running.set(gauges.num_running)
        self._waiting.set(gauges.num_waiting)
        self._tokens_waiting.set(gauges.num_tokens_waiting)
        self._kv_usage.set(gauges.kv_cache_usage)
        return generate_latest(_WithTwins(self._registry)).decode()

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(name, text, ("model", "slo_class"), buckets=buckets, registry=self._registry)
        return family.labels(self._model, SLO_CLASS)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("model",), registry=self._registry).labels(self._model)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model",), registry=self._registry).labels(self._model)

    def _counters(self, name: str, text: str, label: str, values: Iterable[str]) -> list[Counter]:
        family = Counter(name, text, ("model", label), registry=self._registry)
        return [family.labels(self._model, value) for value in values]


class _WithTwins(Collector):
    """All families of a registry, then those that vLLM has too under its names. Leaves the noise of `_created` out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        families = list(self._registry.collect())
        for family in families:
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
        for family in families:
            if (named := twin(family)) is not None:
                yield named
