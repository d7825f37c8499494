"""What was decided about thinking, as counts: how each chat is answered and by whom, and the scores of `auto`."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import HistogramMetricFamily, Metric

from glm_edge.metrics.exposition import without_created
from glm_edge.metrics.histogram import Histogram
from glm_worker.server.thinking.resolve import DecidedBy, Thinking

SCORE_EDGES = tuple((step * 50 - 5) / 1000 for step in range(1, 21))
"""Half of a hundredth below each multiple of 0.05. Scores have two digits and `auto` thinks from its threshold on, so
what is up to such an edge is what would not think with the multiple above it."""


class ThinkingMetrics:
    """One model's."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._registry = CollectorRegistry()
        decisions = Counter(
            "glm_thinking_decisions",
            "Chats by whether the model thinks, and who decided: the request, the policy, the template, or auto.",
            ("model", "mode", "by"),
            registry=self._registry,
        )
        self._decisions = {
            (mode, by): decisions.labels(model, mode, by)
            for mode in ("enabled", "disabled")
            for by in get_args(DecidedBy)
        }
        self._scores = Histogram(SCORE_EDGES)

    def decided(self, thinking: Thinking) -> None:
        """Count one chat."""
        self._decisions["enabled" if thinking.enabled else "disabled", thinking.by].inc()
        if thinking.score is not None:
            self._scores.observe(thinking.score)

    def collect(self) -> Iterator[Metric]:
        yield from without_created(self._registry.collect())
        family = HistogramMetricFamily(
            "glm_auto_thinking_score",
            "Scores of chats about which auto decided, from 0 to 1, in hundredths. Up to the edge 0.495 are those "
            "below a threshold of 0.5, and so for each multiple of 0.05.",
        )
        family.samples = list(self._scores.samples("glm_auto_thinking_score", {"model": self._model}))
        yield family
