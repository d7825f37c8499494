"""Metric families as the text that Prometheus reads, each series with the labels that say whose it is."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


def without_created(families: Iterable[Metric]) -> list[Metric]:
    """Return families without their `_created` series: nobody asks when a counter began."""
    kept = list(families)
    for family in kept:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return kept


def exposition(families: Iterable[Metric], identity: Mapping[str, str]) -> str:
    """Return families as Prometheus text. identity: labels that every series gets."""
    return generate_latest(_Labelled(families, identity)).decode()


class _Labelled(Collector):
    def __init__(self, families: Iterable[Metric], identity: Mapping[str, str]) -> None:
        self._families = families
        self._identity = dict(identity)

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            labelled = Metric(family.name, family.documentation, family.type)
            labelled.samples = [
                sample._replace(labels={**self._identity, **sample.labels}) for sample in family.samples
            ]
            yield labelled
