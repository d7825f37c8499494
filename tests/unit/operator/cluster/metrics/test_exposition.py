"""The quick parser says what prometheus_client's says."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from glm_operator.cluster.metrics.exposition import Known, MalformedText, SeriesName, read_exposition

WANTED = ("wanted", "wanted_total", "wanted_bucket")


def read(text: str, known: Known | None = None) -> list[tuple[str, dict[str, str], float]]:
    found = read_exposition(text, WANTED, {} if known is None else known)
    return [(series.name, dict(series.labels), value) for _, series, value in found]


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.lists(st.tuples(st.text(), st.text(), st.floats()), max_size=4, unique_by=lambda row: row[:2]),
)
def test_a_text_is_read_as_prometheus_client_reads_it(rows: list[tuple[str, str, float]]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("wanted", "Help with \\ and\nnewline.", ["one", "other"], registry=registry)
    for one, other, value in rows:
        gauge.labels(one, other).set(value)
    text = generate_latest(registry).decode(errors="replace")
    expected = [
        (sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    known: Known = {}
    for _ in range(2):  # the second time from what is known
        assert repr(read(text, known)) == repr(expected), "repr, because no NaN equals another"


def test_counters_and_buckets_keep_the_names_they_are_exposed_with() -> None:
    registry = CollectorRegistry()
    Counter("wanted", "Counts.", registry=registry).inc(3)
    Histogram("wanted", "Measures.", ["x"], buckets=(0.5,), registry=CollectorRegistry())
    histogram = CollectorRegistry()
    Histogram("wanted", "Measures.", ["x"], buckets=(0.5,), registry=histogram).labels("y").observe(0.1)
    assert read(generate_latest(registry).decode()) == [("wanted_total", {}, 3.0)]
    assert read(generate_latest(histogram).decode()) == [
        ("wanted_bucket", {"x": "y", "le": "0.5"}, 1.0),
        ("wanted_bucket", {"x": "y", "le": "+Inf"}, 1.0),
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('wanted{a="b"} 1', 1.0),
        ('wanted{a="b",} 1', 1.0),
        ('wanted{ a = "b" }\t1', 1.0),
        ('wanted{a="b"} 1 1700000000000', 1.0),
        ('wanted{a="b"}   -2.5e3  ', -2500.0),
        ('wanted{a="b"} +Inf', math.inf),
    ],
)
def test_spaces_and_times_are_allowed_as_the_format_has_them(line: str, value: float) -> None:
    known: Known = {}
    for _ in range(2):
        assert read(f"{line}\n", known) == [("wanted", {"a": "b"}, value)]


def test_a_label_may_hold_what_looks_like_a_sample() -> None:
    assert read('wanted{a="} 7 {",b="\\\\\\"\\n"} 1') == [("wanted", {"a": "} 7 {", "b": '\\"\n'}, 1.0)]


def test_what_is_not_wanted_is_not_looked_at() -> None:
    assert read("unwanted{a= 1\nwanted_sum 2\n# wanted 3\n\nwanted 4") == [("wanted", {}, 4.0)]


@pytest.mark.parametrize("line", ["wanted", 'wanted{a="b"}', 'wanted{a="b} 1', "wanted{a=b} 1", 'wanted{a="b"} one'])
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(MalformedText, match="wanted"):
        read(line)


@pytest.mark.parametrize("line", ['wanted{a="' + "b" * 10_000, "wanted " + "1" * 10_000 + "x"])
def test_of_a_long_line_only_the_beginning_is_reported(line: str) -> None:
    with pytest.raises(MalformedText) as caught:
        read(line)
    assert len(str(caught.value)) < 150


def test_a_series_is_parsed_once() -> None:
    known: Known = {}
    read('wanted{a="b"} 1', known)
    assert known == {'wanted{a="b"}': SeriesName("wanted", {"a": "b"})}
