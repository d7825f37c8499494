"""The only client of Prometheus: what it is asked about a deployment.

No question takes longer than the timeout, all its queries and waiting for their turn included: one that hangs costs no
more than that.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from glm_operator.api.duration import to_seconds
from glm_operator.api.reasons import Reason
from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import (
    BURN_WINDOW_S,
    DEMAND_WINDOW_S,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
    Series,
)
from glm_operator.cluster.metrics import queries
from glm_operator.cluster.metrics.access import Access, Connection
from glm_operator.cluster.metrics.reading import MetricsProblem

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 8
LONG_PERIOD_S = 60.0
"""Windows longer than an hour are asked for this often: their numbers move slowly, and cost the most."""


Answer = TypeVar("Answer")

Clock = Callable[[], float]
Asked = Callable[[float, Reason | None], None]
"""Told of each query: how long it took in seconds, and why it failed, if it did."""


@dataclass
class _Long:
    """What classes attained in their own windows, and when that was asked."""

    windows_s: Mapping[str, float]
    asked_s: float
    attained: tuple[Attained, ...]


class Prometheus:
    """Asks Prometheus about one deployment at a time. Raises MetricsProblem for all that can go wrong.

    Reasons: NoSeries and MetricsStale for an empty answer, MetricsUnreachable, MetricsRefused.
    """

    def __init__(
        self, access: Access, *, asked: Asked | None = None, now: Clock = time.time, clock: Clock = time.monotonic
    ) -> None:
        self._access = access
        self._connection = Connection(access)
        self._asked = asked
        self._now = now
        self._clock = clock
        self._slots = asyncio.Semaphore(QUERIES_AT_ONCE)
        self._long: dict[tuple[str, str], _Long] = {}

    async def close(self) -> None:
        await self._connection.close()

    async def demand(self, namespace: str, deployment: str) -> list[Series]:
        """Return the samples of DEMAND_METRICS of the last DEMAND_WINDOW_S, each series of ours once."""
        async with self._deadline(asyncio.get_running_loop().time() + self._access.timeout_s):
            query = queries.demand_query(namespace, deployment)
            series = await self._ask(query, queries.read_series)
            if not series:
                raise await self._explain_nothing(namespace, deployment, query)
            if nameless := next((each for each in series if "group" not in each.labels), None):
                words = f"Prometheus has {nameless.name} without the label group; does a relabelling drop it?"
                raise MetricsProblem("NoSeries", f"{words} Query: {query}")
            return series

    async def latencies(self, namespace: str, deployment: str, slo: Slo) -> Latencies:
        """Return what the histograms and the counters of kept promises say of their windows.

        Windows of classes that are no window of ours are asked for every LONG_PERIOD_S, and are left out where
        Prometheus does not answer that in time. Raises NoSeries where it has no histogram at all.
        """
        at_s, until_s = self._now(), asyncio.get_running_loop().time() + self._access.timeout_s
        is_recorded = self._access.has_recording_rules
        found: list[Buckets] = []
        async with self._deadline(until_s):
            for window_s in (SHORT_WINDOW_S, STATUS_WINDOW_S):
                query = queries.buckets_query(namespace, deployment, window_s, is_recorded=is_recorded)
                of_window = await self._ask(query, partial(queries.read_buckets, window_s=window_s))
                if of_window is None:
                    raise MetricsProblem("NoSeries", _no_histograms(query, is_recorded=is_recorded))
                found += of_window
            query = queries.attained_query(namespace, deployment, is_recorded=is_recorded)
            attained = await self._ask(query, queries.read_attained)
        return Latencies(at_s, tuple(found), attained + await self._long_windows(namespace, deployment, slo, until_s))

    def forget(self, namespace: str, deployment: str) -> None:
        """Drop what is kept of a deployment that is gone."""
        self._long.pop((namespace, deployment), None)

    async def _long_windows(self, namespace: str, deployment: str, slo: Slo, until_s: float) -> tuple[Attained, ...]:
        """Return what classes attained in their own windows, as of the last LONG_PERIOD_S."""
        windows_s = {each.name: to_seconds(each.window) for each in slo.classes}
        windows_s = {name: s for name, s in windows_s.items() if s not in (STATUS_WINDOW_S, BURN_WINDOW_S)}
        if not windows_s:
            return ()
        kept = self._long.get((namespace, deployment))
        if kept is not None and kept.windows_s == windows_s and self._clock() - kept.asked_s < LONG_PERIOD_S:
            return kept.attained
        max_s = self._access.max_window_s
        distinct_s = sorted({min(window_s, max_s) for window_s in windows_s.values()})
        query = queries.long_query(namespace, deployment, distinct_s, is_recorded=self._access.has_recording_rules)
        attained: tuple[Attained, ...] = ()
        try:
            async with self._deadline(until_s):
                attained = await self._ask(query, partial(queries.read_long, windows_s=windows_s, max_window_s=max_s))
        except MetricsProblem as problem:  # the rest is known, and this is the query that costs the most
            logger.warning("%s/%s: nothing is known of long windows: %s", namespace, deployment, problem)
        self._long[namespace, deployment] = _Long(windows_s, self._clock(), attained)
        return attained

    async def _explain_nothing(self, namespace: str, deployment: str, query: str) -> MetricsProblem:
        """Return what an empty answer to the demand query means."""
        if await self._ask(queries.earlier_query(namespace, deployment), bool):
            return MetricsProblem(
                "MetricsStale",
                f"Prometheus has had no new samples for {DEMAND_WINDOW_S:g} s, and had some within the last "
                f"{queries.STALE_AFTER}. Check its targets. Query: {query}",
            )
        return MetricsProblem("NoSeries", f"Prometheus has no series for this query: {query}")

    @asynccontextmanager
    async def _deadline(self, until_s: float) -> AsyncIterator[None]:
        """Give up what is not answered by then, in the time of the event loop."""
        try:
            async with asyncio.timeout_at(until_s):
                yield
        except TimeoutError as error:
            raise self._connection.unreachable(f"did not answer within {self._access.timeout_s:g} s") from error

    async def _ask(self, query: str, read: Callable[[object], Answer]) -> Answer:
        """Return what an instant query brings, read into our types."""
        begun_s = self._clock()
        reason: Reason | None = "MetricsUnreachable"  # also of what its deadline ends
        try:
            async with self._slots:
                answer = await self._connection.instant(query)
            result = read(answer)
            reason = None
            return result
        except queries.WrongAnswer as error:
            raise self._connection.unreachable(f"sent an answer that is not Prometheus': {error}") from error
        except MetricsProblem as problem:
            reason = problem.trouble.reason
            raise
        finally:
            if self._asked is not None:
                self._asked(self._clock() - begun_s, reason)


def _no_histograms(query: str, *, is_recorded: bool) -> str:
    if is_recorded:
        return f"Prometheus has demand, and not what the recording rules record; are the rules loaded? Query: {query}"
    return f"Prometheus has demand, and no histograms; does a relabelling drop _bucket? Query: {query}"
