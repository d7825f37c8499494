"""Counts of times between edges. For one thread, and cheap: every token of every request is counted twice.

prometheus_client has the same edges for all series of a histogram, and takes locks and a walk over the edges for each
observation.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.samples import Sample

from glm_edge.metrics.exposition import go_float


class Histogram:
    """edges: upper edges in seconds, ascending; an observation counts in the first that is not below it."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self._counts = [0] * (len(self.edges) + 1)  # the last one: past all edges
        self._sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a time that was measured count times."""
        self._counts[bisect_left(self.edges, seconds)] += count
        self._sum += seconds * count

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Yield the series of a histogram of this name: buckets up to each edge, the count and the sum of all."""
        num = 0
        for edge, num in zip((*self.edges, float("inf")), accumulate(self._counts), strict=True):
            yield Sample(f"{name}_bucket", {**labels, "le": go_float(edge)}, float(num))
        yield Sample(f"{name}_count", dict(labels), float(num))
        yield Sample(f"{name}_sum", dict(labels), self._sum)
