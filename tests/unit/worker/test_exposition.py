"""Pages of metrics, against the library that everybody uses."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from glm_edge.metrics.exposition import Exposition, go_float, without_created
from glm_edge.metrics.histogram import Histogram

ODD = 'a "quoted" \\ back\nslash'


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def some_families() -> list[Metric]:
    registry = CollectorRegistry()
    gauge = Gauge("a_gauge", ODD, ["mode"], registry=registry)
    for number, value in enumerate((0, 1, -2.5, 1e-9, 1234567.5, 3e12, float("inf"), float("-inf"), float("nan"))):
        gauge.labels(f"{ODD}{number}").set(value)
    Counter("some_things", "Without labels.", registry=registry).inc(3)
    TheirHistogram("a_time_seconds", "Times.", ["x", "b"], registry=registry).labels("1", "2").observe(0.3)
    return without_created(registry.collect())


def test_a_page_is_what_the_library_writes() -> None:
    page = Exposition({})
    assert page.text(some_families()) == generate_latest(_Given(some_families())).decode()
    assert page.text(some_families()) == generate_latest(_Given(some_families())).decode(), "the second time as well"


def test_every_series_gets_the_labels_that_say_whose_it_is() -> None:
    labelled = some_families()
    for family in labelled:
        family.samples = [sample._replace(labels={"group": ODD, **sample.labels}) for sample in family.samples]
    assert Exposition({"group": ODD}).text(some_families()) == generate_latest(_Given(labelled)).decode()


def test_what_is_kept_of_lines_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_edge.metrics.exposition._MOST_KEPT", 10)
    page = Exposition({})
    for number in range(50):
        family = Metric("a", "b", "gauge")
        family.add_sample("a", {"n": str(number)}, 1)
        page.text([family])
    assert len(page._starts) <= 11


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.1000001, 0.3, 0.99, 1.0, 1.1, 1e9])
def test_a_histogram_counts_as_the_library_does(seconds: float) -> None:
    edges = (0.1, 0.3, 1.0)
    ours, theirs = Histogram(edges), TheirHistogram("t", "T", buckets=edges, registry=None)
    ours.observe(seconds)
    ours.observe(0.2, 3)
    for each in (seconds, 0.2, 0.2, 0.2):
        theirs.observe(each)
    family = Metric("t", "T", "histogram")
    family.samples = list(ours.samples("t", {}))
    (expected,) = without_created(theirs.collect())
    series, their_series = ([(each.name, each.labels) for each in found.samples] for found in (family, expected))
    assert series == their_series
    assert [each.value for each in family.samples] == pytest.approx([each.value for each in expected.samples])


def test_an_edge_is_written_as_a_person_would() -> None:
    assert [go_float(edge) for edge in (0.009, 0.7, 47.0, float("inf"))] == ["0.009", "0.7", "47.0", "+Inf"]
