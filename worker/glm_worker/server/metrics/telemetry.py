"""What the server measures, as Prometheus metrics. The supervisor serves the text on its management port.

Every series exists from the start, so a missing one means a missing worker and never zero.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from glm_edge.metrics.exposition import Exposition, without_created
from glm_worker.messages import Slo, StepDone
from glm_worker.server.metrics.class_metrics import ClassMeasures, ClassMetrics
from glm_worker.server.metrics.expert_load import ExpertLoad
from glm_worker.server.metrics.outcomes import OUTCOMES, Outcome
from glm_worker.server.metrics.prefill_speed import PrefillSpeed
from glm_worker.server.metrics.thinking import ThinkingMetrics
from glm_worker.server.metrics.vllm_names import cache_config, twin
from glm_worker.server.slo import Headers
from glm_worker.server.text.deltas import FinishReason

FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls")


@dataclass(frozen=True)
class Gauges:
    """What stands now, in the engine and before it. Tokens are of prompts unless said otherwise."""

    num_running: int = 0
    num_waiting: int = 0
    num_tokens_waiting: int = 0
    num_cached_waiting: int = 0  # of these, the ones that a cache has
    kv_cache_usage: float = 0.0
    oldest_waiting_s: float = 0.0
    num_tokens_left: int = 0  # not yet computed, of the requests that run
    in_flight_tokens: int = 0  # of prompts and answers
    block_size: int = 0
    num_blocks: int = 0  # 0: not known yet
    max_running: int = 0
    kernels: str = ""  # what computes the layers; empty: not known

    @property
    def num_uncached_waiting(self) -> int:
        """Tokens that the waiting requests will have to compute."""
        return max(0, self.num_tokens_waiting - self.num_cached_waiting)


class Telemetry:
    """The metrics of one server. Times are differences of one monotonic clock, in seconds.

    identity: labels of every series, which say whose they are.
    """

    def __init__(
        self, model: str, identity: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._page = Exposition(identity or {})
        self._clock = clock
        self._classes = ClassMetrics(model)
        self._expert_load = ExpertLoad()
        self.thinking = ThinkingMetrics(model)
        self.prefill_speed = PrefillSpeed()
        self._running = self._gauge("glm_num_requests_running", "Requests that the engine computes.")
        self._waiting = self._gauge("glm_num_requests_waiting", "Requests that wait for the engine.")
        self._max_running = self._gauge("glm_max_running_requests", "Requests that may run at once.")
        self._oldest_waiting = self._gauge(
            "glm_oldest_waiting_seconds",
            "Age of the oldest request of which no step has computed anything yet; 0: none waits.",
        )
        self._tokens_waiting = self._gauge("glm_num_tokens_waiting", "Prompt tokens of the requests that wait.")
        self._uncached_waiting = self._gauge(
            "glm_prompt_tokens_waiting",
            "Prompt tokens of the requests that wait, without those that the cache of prefixes had when they came.",
        )
        self._uncached_left = self._gauge(
            "glm_prompt_tokens_left", "Prompt tokens that are not computed yet, of the requests that run."
        )
        self._in_flight = self._gauge(
            "glm_in_flight_tokens", "Tokens of the prompts of all requests, and those generated for them so far."
        )
        self._kv_usage = self._gauge("glm_kv_cache_usage_ratio", "KV blocks in use; 1 is full.")
        self._kv_tokens = self._gauge(
            "glm_kv_cache_tokens", "Tokens that the KV cache holds when full; 0 before the first generation serves."
        )
        self.connections = self._gauge("glm_http_connections", "Connections of clients that are open.")
        self.prompt_tokens = self._counter("glm_prompt_tokens", "Tokens of prompts that the engine began with.")
        self._prefix_queries = self._counter(
            "glm_prefix_cache_queries", "Tokens of prompts that were looked up in the cache of prefixes."
        )
        self._prefix_hits = self._counter(
            "glm_prefix_cache_hits", "Tokens of prompts that the cache had, so they were not computed."
        )
        self.reasoning_tokens, self.answer_tokens = self._counters(
            "glm_generation_tokens", "Tokens generated, thinking and answer apart.", "kind", ("reasoning", "answer")
        )
        outcomes = self._counters("glm_requests", "Requests by how they ended.", "outcome", OUTCOMES)
        self._requests = dict(zip(OUTCOMES, outcomes, strict=True))
        finished = self._counters(
            "glm_finished_requests", "Finished requests by finish reason.", "finish_reason", FINISH_REASONS
        )
        self._finished = dict(zip(FINISH_REASONS, finished, strict=True))
        self._thinking, self._not_thinking = self._counters(
            "glm_thinking_requests",
            "Requests that were admitted, by whether the model thinks before it answers them.",
            "thinking",
            ("enabled", "disabled"),
        )
        self._steps = self._counter("glm_engine_steps", "Steps of the engine.")
        self._last_step = self._gauge(
            "glm_engine_last_step_timestamp_seconds", "Unix time of the last step; 0: none yet."
        )
        self._prefill_tokens = self._counter("glm_prefill_tokens", "Prompt tokens that steps have computed.")
        self._prefill_busy = self._counter(
            "glm_prefill_busy_seconds",
            "Time of steps that prompt tokens took; with glm_decode_busy_seconds it is all.",
        )
        self._decode_tokens = self._counter("glm_decode_tokens", "Tokens that steps have generated after prompts.")
        self._decode_steps = self._counter("glm_decode_steps", "Steps that have generated any token after a prompt.")
        self._decode_busy = self._counter("glm_decode_busy_seconds", "Time of steps that generated tokens took.")
        self._imbalance = self._gauge(
            "glm_expert_load_imbalance_ratio",
            "Tokens for the experts of the busiest rank against the mean over ranks, in the last minute; 1 is even.",
        )
        self._preemptions = self._counter("glm_preemptions", "Requests put back to waiting for want of KV blocks.")
        self._preemptions_seen = 0

    def promise(self, slo: Slo) -> None:
        """Measure by these promises from now on."""
        self._classes.promise(slo)

    def class_of(self, *, thinking: bool, headers: Headers) -> ClassMeasures:
        """Return what a request is measured by."""
        return self._classes.of(thinking=thinking, headers=headers)

    def admitted(self, *, thinking: bool) -> None:
        """Count a request as it is admitted."""
        (self._thinking if thinking else self._not_thinking).inc()

    def looked_up(self, num_prompt_tokens: int, num_cached_tokens: int) -> None:
        """Count what the cache of prefixes had of a prompt; once for each request, when its first token is there."""
        self._prefix_queries.inc(num_prompt_tokens)
        self._prefix_hits.inc(num_cached_tokens)

    def generation_began(self) -> None:
        """The engine's own counts begin anew."""
        self._preemptions_seen = 0
        self._expert_load.restart()

    def step(self, done: StepDone, unix_time: float) -> None:
        """Note one step of the engine."""
        self._steps.inc()
        self._last_step.set(unix_time)
        self._preemptions.inc(max(0, done.num_preemptions - self._preemptions_seen))
        self._preemptions_seen = done.num_preemptions
        self._prefill_tokens.inc(done.prefill_tokens)
        self._prefill_busy.inc(done.prefill_s)
        self.prefill_speed.add(done.prefill_tokens, done.prefill_s)
        self._decode_tokens.inc(done.decode_tokens)
        self._decode_steps.inc(done.decode_tokens > 0)
        self._decode_busy.inc(done.decode_s)
        self._expert_load.report(self._clock(), done.expert_tokens_by_rank)

    def ended(self, outcome: Outcome) -> None:
        """Note how a request ended; once for each."""
        self._requests[outcome].inc()

    def finished(self, reason: FinishReason) -> None:
        self._finished[reason].inc()

    def exposition(self, gauges: Gauges) -> str:
        """Return all metrics as Prometheus text."""
        return self._page.text(self.families(gauges))

    def families(self, gauges: Gauges) -> list[Metric]:
        """Return all metrics: ours, then those that vLLM has too under its names."""
        self._running.set(gauges.num_running)
        self._waiting.set(gauges.num_waiting)
        self._max_running.set(gauges.max_running)
        self._oldest_waiting.set(gauges.oldest_waiting_s)
        self._tokens_waiting.set(gauges.num_tokens_waiting)
        self._uncached_waiting.set(gauges.num_uncached_waiting)
        self._uncached_left.set(gauges.num_tokens_left)
        self._in_flight.set(gauges.in_flight_tokens)
        self._kv_usage.set(gauges.kv_cache_usage)
        self._kv_tokens.set(gauges.num_blocks * gauges.block_size)
        self._imbalance.set(self._expert_load.imbalance(self._clock()))
        plain = without_created(self._registry.collect())
        twins = [named for family in [*self._classes.totals(), *plain] if (named := twin(family)) is not None]
        config = cache_config(self._model, block_size=gauges.block_size, num_blocks=gauges.num_blocks)
        own = [*self._classes.collect(), *plain, *self.thinking.collect(), self._kernels(gauges.kernels)]
        return [*own, *twins, config]

    def _kernels(self, kernels: str) -> Metric:
        family = GaugeMetricFamily(
            "glm_kernels_info",
            "Always 1. Label: what computes the layers, torch or the kernels of an instruction set (cpu-avx512bf16 and"
            " the like); empty before the first generation serves.",
            labels=["model", "kernels"],
        )
        family.add_metric([self._model, kernels], 1)
        return family

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("model",), registry=self._registry).labels(self._model)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model",), registry=self._registry).labels(self._model)

    def _counters(self, name: str, text: str, label: str, values: Iterable[str]) -> list[Counter]:
        family = Counter(name, text, ("model", label), registry=self._registry)
        return [family.labels(self._model, value) for value in values]
