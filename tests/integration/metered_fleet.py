"""Groups under load, as a source reads them: a queue and a prefill rate each, on a clock of their own.

Requests arrive evenly at all groups that serve. A group computes prompts at a fixed rate; what it does not get to
waits. Nothing is random, so the same story has the same decisions.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.series import (
    BURN_WINDOW_S,
    DEMAND_METRICS,
    DEMAND_WINDOW_S,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
    Sample,
    Series,
)
from glm_operator.cluster.metrics.reading import Reading, Target

PREFILL_RATE = 4000.0  # prompt tokens a second of a busy group
PROMPT_TOKENS = 1000.0
ANSWER_TOKENS = 10.0
STEP_S = 0.02  # of a decode step, whatever the batch
EDGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, float("inf"))
PERIOD_S = 5.0

LABELS: Mapping[str, Mapping[str, str]] = {
    "glm_requests_received_total": {"slo_class": "chat"},
    "glm_prompt_tokens_received_total": {"slo_class": "chat"},
    "glm_generation_tokens_total": {"kind": "answer"},
    "glm_requests_total": {"outcome": "finished"},
    "glm_cold_start_seconds": {"phase": "total"},
}


@dataclass
class Group:
    """One group: what it counts, and its last samples."""

    since_s: float
    waiting: float = 0.0  # requests
    totals: dict[str, float] = field(default_factory=dict)
    samples: dict[str, deque[Sample]] = field(default_factory=dict)

    def advance(self, now_s: float, arrived: float, period_s: float = PERIOD_S) -> tuple[float, float]:
        """Let a period pass; return the requests that got their first token, and after how long."""
        most = PREFILL_RATE / PROMPT_TOKENS * period_s
        done = min(self.waiting + arrived, most)
        self.waiting += arrived - done
        oldest_s = self.waiting / (PREFILL_RATE / PROMPT_TOKENS)
        for name, more in {
            "glm_requests_received_total": arrived,
            "glm_prompt_tokens_received_total": arrived * PROMPT_TOKENS,
            "glm_generation_tokens_total": done * ANSWER_TOKENS,
            "glm_requests_total": done,
            "glm_prefill_tokens_total": done * PROMPT_TOKENS,
            "glm_prefill_busy_seconds_total": done * PROMPT_TOKENS / PREFILL_RATE,
            "glm_decode_tokens_total": done * ANSWER_TOKENS,
            "glm_decode_steps_total": done * ANSWER_TOKENS / 2,
            "glm_decode_busy_seconds_total": done * ANSWER_TOKENS / 2 * STEP_S,
        }.items():
            self.totals[name] = self.totals.get(name, 0.0) + more
        running = min(2.0, done)
        gauges = {
            "glm_group_serving_timestamp_seconds": self.since_s,
            "glm_group_draining": 0.0,
            "glm_num_requests_running": running,
            "glm_num_requests_waiting": self.waiting,
            "glm_oldest_waiting_seconds": oldest_s,
            "glm_prompt_tokens_waiting": self.waiting * PROMPT_TOKENS,
            "glm_prompt_tokens_left": 0.0,
            "glm_in_flight_tokens": (running + self.waiting) * PROMPT_TOKENS,
            "glm_kv_cache_usage_ratio": 0.02 * running,
            "glm_kv_cache_tokens": 100_000.0,
            "glm_max_running_requests": 64.0,
            "glm_cold_start_seconds": 20.0,
        }
        assert {*gauges, *self.totals} == set(DEMAND_METRICS)
        for name, value in {**gauges, **self.totals}.items():
            kept = self.samples.setdefault(name, deque())
            kept.append((now_s, value))
            while now_s - kept[0][0] > DEMAND_WINDOW_S:
                kept.popleft()
        return done, 0.2 + oldest_s


@dataclass
class Fleet:
    """All groups of one deployment. Prometheus, or the workers themselves, read it."""

    now_s: float
    requests_per_s: float = 0.0
    trouble: Trouble | None = None  # with Prometheus
    has_fallback: bool = True
    hidden: set[str] = field(default_factory=set)  # groups of which no source has a series
    ahead_s: float = 0.0  # of the operator's clock, Prometheus' own
    hangs: asyncio.Event | None = None  # until it is set
    num_reads: int = 0
    groups: dict[str, Group] = field(default_factory=dict)
    served: list[tuple[float, float, float]] = field(default_factory=list)  # when, requests, seconds to first token
    forgotten: list[str] = field(default_factory=list)

    def advance(self, serving: Sequence[str]) -> None:
        """Let a period pass, in which these groups serve."""
        self.now_s += PERIOD_S
        self.groups = {name: self.groups.get(name) or Group(self.now_s) for name in serving}
        for group in self.groups.values():
            arrived = self.requests_per_s * PERIOD_S / len(self.groups)
            self.served.append((self.now_s, *group.advance(self.now_s, arrived)))

    async def read(
        self, namespace: str, deployment: str, targets: Sequence[Target], slo: Slo, on_missing: str = "Fallback"
    ) -> Reading:
        self.num_reads += 1
        if self.hangs is not None:
            await self.hangs.wait()
        away = self.trouble is not None
        if away and (on_missing == "Hold" or not self.has_fallback):
            return Reading(at_s=self.now_s, source="Prometheus", trouble=self.trouble)
        known = {target.group for target in targets} - self.hidden
        series = [
            Series(
                name,
                {"group": group, **LABELS.get(name, {})},
                tuple((at_s + self.ahead_s, value) for at_s, value in kept),
            )
            for group, found in self.groups.items()
            if group in known
            for name, kept in found.samples.items()
        ]
        trouble = self.trouble
        if not series and any(target.serves for target in targets):
            trouble = Trouble("metrics", "NoSeries", f'no series of {{deployment="{deployment}"}}')
        return Reading(
            at_s=self.now_s,
            source="Workers" if away else "Prometheus",
            series=tuple(series),
            latencies=self._latencies() if series else None,
            trouble=trouble,
        )

    def forget(self, namespace: str, deployment: str) -> None:
        self.forgotten.append(f"{namespace}/{deployment}")

    def _latencies(self) -> Latencies:
        windows = (SHORT_WINDOW_S, STATUS_WINDOW_S)
        shares = (STATUS_WINDOW_S, BURN_WINDOW_S)
        return Latencies(
            self.now_s,
            tuple(
                Buckets("chat", "ttft", each, tuple((edge, self._ended(each, edge)) for edge in EDGES))
                for each in windows
            ),
            tuple(Attained("chat", each, self._ended(each, EDGES[-1]), self._ended(each, 0.5)) for each in shares),
        )

    def _ended(self, window_s: float, within_s: float) -> float:
        return sum(
            requests for at_s, requests, took_s in self.served if self.now_s - at_s <= window_s and took_s <= within_s
        )
