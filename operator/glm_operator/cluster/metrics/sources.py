"""Chooses whom to ask: Prometheus if there is one, and the workers themselves where it cannot be used."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.series import Latencies, Series
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.reading import MetricsProblem, Reading, SourceName, Target
from glm_operator.cluster.metrics.scrape import Scraper

FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 30.0

GRACE_S = 60.0
"""A group that begins to serve is unknown to Prometheus for a while: it has to be discovered and scraped first."""

Answer = TypeVar("Answer")
OnMissing = Literal["Fallback", "Hold"]
_BACKS_OFF = ("MetricsUnreachable", "MetricsRefused")
_MAX_SILENT = 3


@dataclass(frozen=True)
class _Question:
    """Of which deployment something is asked in this period."""

    namespace: str
    deployment: str
    targets: Sequence[Target]
    slo: Slo

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.deployment


@dataclass
class _Deployment:
    """What is remembered of one deployment between its periods."""

    serving_since_s: float | None = None
    latencies: Latencies | None = None
    latencies_of: SourceName | None = None
    latencies_at_s: float = 0.0
    problem: MetricsProblem | None = None  # the last of Prometheus; None: it can be used
    latency_problem: MetricsProblem | None = None  # the same of the latencies alone
    failures: int = 0  # in a row, that slow down
    ask_again_s: float = 0.0

    def is_due(self, source: SourceName, now_s: float, period_s: float) -> bool:
        """Whether latencies are to be read from a source."""
        return self.latencies_of != source or now_s - self.latencies_at_s >= period_s

    def keep(self, latencies: Latencies | None, source: SourceName, now_s: float) -> None:
        self.latencies, self.latencies_of, self.latencies_at_s = latencies, source, now_s

    def note(self, problem: MetricsProblem | None, now_s: float) -> None:
        """Note whether Prometheus could be used; where it does not answer, it is asked more and more seldom."""
        self.problem = problem
        self.failures = self.failures + 1 if problem is not None and problem.trouble.reason in _BACKS_OFF else 0
        pause_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self.failures - 1)) if self.failures else 0.0
        self.ask_again_s = now_s + pause_s


class Sources:
    """Reads the numbers of deployments. One for the whole operator, and one for `glm local`.

    What goes wrong with one deployment slows down no other: each has its own back-off.
    """

    def __init__(
        self,
        scraper: Scraper,
        prometheus: Prometheus | None = None,
        *,
        latency_period_s: float = 15.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """prometheus: None where none is configured; then the workers are asked, and that is no trouble."""
        self._scraper = scraper
        self._prometheus = prometheus
        self._latency_period_s = latency_period_s
        self._now = now
        self._clock = clock
        self._kept: dict[tuple[str, str], _Deployment] = {}

    async def close(self) -> None:
        await self._scraper.close()
        if self._prometheus is not None:
            await self._prometheus.close()

    def forget(self, namespace: str, deployment: str) -> None:
        """Drop what is kept of a deployment that is gone."""
        self._kept.pop((namespace, deployment), None)
        self._scraper.forget(namespace, deployment)
        if self._prometheus is not None:
            self._prometheus.forget(namespace, deployment)

    async def read(
        self,
        namespace: str,
        deployment: str,
        targets: Sequence[Target],
        slo: Slo,
        on_missing: OnMissing = "Fallback",
    ) -> Reading:
        """Return what this period brings. Never raises for what a source does.

        It takes at most the timeout of Prometheus, and 2 s more for the workers in the period in which Prometheus first
        fails. Call it once a demand period; latencies are renewed when they are due. targets: every group whose leading
        pod has an address.
        """
        question = _Question(namespace, deployment, targets, slo)
        kept = self._kept.setdefault(question.key, _Deployment())
        self._note_serving(kept, targets)
        if not targets:
            source: SourceName = "Workers" if self._prometheus is None else "Prometheus"
            trouble = Trouble("metrics", "MetricsMissing", "no group has an address yet")
            return Reading(at_s=self._now(), source=source, trouble=trouble)
        if self._prometheus is None:
            return self._of_workers(kept, question, await self._scrape(question), None)
        scraped: list[Series] | None = None
        if kept.problem is not None and on_missing == "Fallback":
            # It failed the last time. Whether it does so again is not waited for first.
            series, scraped = await asyncio.gather(self._ask(self._prometheus, kept, question), self._scrape(question))
        else:
            series = await self._ask(self._prometheus, kept, question)
        if kept.problem is None:
            return Reading(at_s=self._now(), source="Prometheus", series=tuple(series), latencies=kept.latencies)
        trouble = self._trouble(kept, kept.problem.trouble)
        if on_missing == "Hold":
            return Reading(at_s=self._now(), source="Prometheus", series=tuple(series), trouble=trouble)
        if scraped is None:
            scraped = await self._scrape(question)
        return self._of_workers(kept, question, scraped, trouble)

    async def _ask(self, prometheus: Prometheus, kept: _Deployment, question: _Question) -> list[Series]:
        """Return the series of demand that Prometheus has, and keep its latencies; note what went wrong in `kept`."""
        now_s = self._clock()
        if now_s < kept.ask_again_s:
            return []
        demand = _attempt(prometheus.demand(*question.key))
        if kept.is_due("Prometheus", now_s, self._latency_period_s):
            (series, problem), (latencies, kept.latency_problem) = await asyncio.gather(
                demand, _attempt(prometheus.latencies(*question.key, question.slo))
            )
            if kept.latency_problem is None or kept.latency_problem.trouble.reason not in _BACKS_OFF:
                kept.keep(latencies, "Prometheus", now_s)
        else:
            series, problem = await demand
        kept.note(problem or kept.latency_problem, self._clock())
        return series or []

    async def _scrape(self, question: _Question) -> list[Series]:
        return await self._scraper.demand(*question.key, question.targets)

    def _of_workers(
        self, kept: _Deployment, question: _Question, series: list[Series], trouble: Trouble | None
    ) -> Reading:
        """Return what the workers said. trouble: why it was not Prometheus that was asked."""
        if not series:
            return Reading(at_s=self._now(), source="Workers", trouble=self._silence(question, trouble))
        now_s = self._clock()
        is_empty = kept.latencies is None or not kept.latencies.buckets
        if is_empty or kept.is_due("Workers", now_s, self._latency_period_s):
            kept.keep(self._scraper.latencies(*question.key, question.slo), "Workers", now_s)
        return Reading(
            at_s=self._now(), source="Workers", series=tuple(series), latencies=kept.latencies, trouble=trouble
        )

    def _silence(self, question: _Question, trouble: Trouble | None) -> Trouble:
        """Return the trouble of workers that have said nothing of demand for a while."""
        silent = self._scraper.silent(*question.key)
        few = "; ".join(f"{group}: {why}" for group, why in sorted(silent.items())[:_MAX_SILENT])
        if not silent:
            words = "workers answer, and have none of the metrics of demand"
        else:
            words = f"{len(silent)} of {len(question.targets)} workers do not answer: {few}"
        if trouble is None:
            return Trouble("metrics", "MetricsMissing", words)
        return Trouble(trouble.about, trouble.reason, f"{trouble.message}; and {words}")

    def _trouble(self, kept: _Deployment, trouble: Trouble) -> Trouble:
        """Return what is reported: no series is no fault while nothing serves, or has not for long."""
        since_s = kept.serving_since_s
        if trouble.reason == "NoSeries" and (since_s is None or self._clock() - since_s < GRACE_S):
            return Trouble(trouble.about, "MetricsMissing", f"not scraped yet: {trouble.message}")
        return trouble

    def _note_serving(self, kept: _Deployment, targets: Sequence[Target]) -> None:
        if not any(target.serves for target in targets):
            kept.serving_since_s = None
        elif kept.serving_since_s is None:
            kept.serving_since_s = self._clock()


async def _attempt(question: Awaitable[Answer]) -> tuple[Answer | None, MetricsProblem | None]:
    try:
        return await question, None
    except MetricsProblem as problem:
        return None, problem
