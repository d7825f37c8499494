"""Time series of one deployment as a source read them, whichever source it was. Pure.

Times are unix seconds. Samples carry the time at which they were scraped, so that age is known and never assumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Sample = tuple[float, float]
"""Time and value."""


@dataclass(frozen=True)
class Series:
    """One series: the metric's name (as exposed, `_total` included), its labels, its samples in order of time."""

    name: str
    labels: Mapping[str, str]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Buckets:
    """What a histogram counted within a window, all groups added up.

    counts: pairs of upper edge in seconds and the requests (or tokens) up to it, cumulative, the edge +Inf last.
    """

    slo_class: str
    signal: str  # ttft, ttfa, itl or e2e
    window_s: float
    counts: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Attained:
    """Requests of a class that ended within a window, and how many of them met every threshold.

    Each was measured against the promise that held when it ended, whatever it is now.
    """

    slo_class: str
    window_s: float
    requests: float
    met: float
    covered_s: float | None = None  # how much of the window the source has seen, where that is less; None: all of it


@dataclass(frozen=True)
class Latencies:
    """What the latency queries brought. at_s: when they were asked."""

    at_s: float
    buckets: tuple[Buckets, ...] = ()
    attained: tuple[Attained, ...] = ()


SHORT_WINDOW_S = 60.0
"""Of the latency that feeds back into the safety factor."""

STATUS_WINDOW_S = 300.0
"""Of the latency and attainment that the status shows, and of the fast burn of an error budget."""

BURN_WINDOW_S = 3600.0
"""Of the burn rate beside the fast one."""

DEMAND_WINDOW_S = 45.0
"""Of the samples that a demand query brings: enough for rates over 30 s at a scrape interval of 15 s."""

DEMAND_METRICS: tuple[str, ...] = (
    "glm_group_serving_timestamp_seconds",
    "glm_group_draining",
    "glm_num_requests_running",
    "glm_num_requests_waiting",
    "glm_oldest_waiting_seconds",
    "glm_prompt_tokens_waiting",
    "glm_prompt_tokens_left",
    "glm_in_flight_tokens",
    "glm_kv_cache_usage_ratio",
    "glm_kv_cache_tokens",
    "glm_max_running_requests",
    "glm_requests_received_total",
    "glm_prompt_tokens_received_total",
    "glm_generation_tokens_total",
    "glm_requests_total",
    "glm_prefill_tokens_total",
    "glm_prefill_busy_seconds_total",
    "glm_decode_tokens_total",
    "glm_decode_steps_total",
    "glm_decode_busy_seconds_total",
    "glm_cold_start_seconds",
)
"""What one demand query reads of a deployment (docs/metrics.md says what each is)."""

HISTOGRAMS: Mapping[str, str] = {
    "ttft": "glm_time_to_first_token_seconds",
    "ttfa": "glm_time_to_first_answer_token_seconds",
    "itl": "glm_inter_token_latency_seconds",
    "e2e": "glm_e2e_request_latency_seconds",
}
"""By signal."""

ATTAINED = "glm_slo_requests_total"  # labels slo_class, met="true"|"false"

DECISIONS = "glm_thinking_decisions_total"  # labels mode="enabled"|"disabled", by="request"|"policy"|"template"|"auto"
