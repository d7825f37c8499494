"""What Prometheus is asked, and how its answers are read."""

import math
from typing import Any

import promql_parser
import pytest

from glm_operator.autoscale.series import DEMAND_METRICS, STATUS_WINDOW_S, Attained, Buckets, Series
from glm_operator.cluster.metrics import queries
from glm_operator.cluster.metrics.queries import WrongAnswer, read_attained, read_buckets, read_long, read_series

OF_GROUP = {"__name__": "glm_in_flight_tokens", "namespace": "models", "deployment": "chat", "group": "chat-g0"}
OWN = {name: value for name, value in OF_GROUP.items() if name != "__name__"}


def ranged(*samples: tuple[float, str], **labels: str) -> dict[str, Any]:
    return {"metric": {**OF_GROUP, **labels}, "values": [list(sample) for sample in samples]}


def instant(term: str, value: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"term": term, **labels}, "value": [0, value]}


@pytest.mark.parametrize("is_recorded", [False, True])
def test_every_query_parses(is_recorded: bool) -> None:
    for query in (
        queries.demand_query("models", "chat"),
        queries.earlier_query("models", "chat"),
        queries.buckets_query("models", "chat", STATUS_WINDOW_S, is_recorded=is_recorded),
        queries.attained_query("models", "chat", is_recorded=is_recorded),
        queries.long_query("models", "chat", [600.0, 6 * 3600.0, 30 * 86400.0], is_recorded=is_recorded),
    ):
        promql_parser.parse(query)
        assert len(query) < 6000, "it is sent as a part of a URL"


def test_the_demand_query_is_one_selector_of_one_deployment() -> None:
    assert queries.demand_query("models", "chat") == (
        '{__name__=~"' + "|".join(DEMAND_METRICS) + '",namespace="models",deployment="chat"}[45s]'
    )


def test_a_value_cannot_leave_its_quotes() -> None:
    query = queries.demand_query('a"} or up{x="', "b\\\n")
    assert 'namespace="a\\"} or up{x=\\"",deployment="b\\\\\\n"' in query
    promql_parser.parse(query)


def test_a_series_keeps_its_own_labels_and_loses_those_of_the_scrape() -> None:
    found = read_series([ranged((1, "2"), (2.5, "3"), job="pods", instance="10.0.0.7:9090", revision="r1")])
    assert found == [Series("glm_in_flight_tokens", {**OWN, "revision": "r1"}, ((1.0, 2.0), (2.5, 3.0)))]


def test_what_is_no_number_is_passed_on() -> None:
    values = [value for _, value in read_series([ranged((1, "NaN"), (2, "+Inf"), (3, "-Inf"))])[0].samples]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize("is_turned", [False, True])
def test_of_two_scrapes_of_one_series_the_fresher_counts(is_turned: bool) -> None:
    scrapes = [ranged((1, "1"), (11, "11"), job="a"), ranged((2, "2"), (12, "12"), job="b")]
    found = read_series(scrapes[::-1] if is_turned else scrapes)
    assert [each.samples for each in found] == [((2.0, 2.0), (12.0, 12.0))]


def test_a_pod_and_its_successor_are_one_series() -> None:
    found = read_series([ranged((20, "1"), instance="new"), ranged((1, "7"), (10, "9"), instance="old")])
    assert [each.samples for each in found] == [((1.0, 7.0), (10.0, 9.0), (20.0, 1.0))]


@pytest.mark.parametrize(
    "result", [None, "up", [1], [{"metric": OF_GROUP}], [{"metric": {}, "values": [[1, "2"]]}], [ranged((1, "many"))]]
)
def test_what_is_no_matrix_is_a_wrong_answer(result: object) -> None:
    with pytest.raises(WrongAnswer):
        read_series(result)


def test_buckets_without_an_increase_yet_are_none_and_no_samples_are_something_else() -> None:
    single = [instant("workers ttft samples", "1", slo_class="chat", le=le) for le in ("0.5", "+Inf")]
    assert read_buckets(single, 60.0) == ()
    assert read_buckets([], 60.0) is None


@pytest.mark.parametrize("labels", [{}, {"le": "much"}])
def test_a_bucket_without_an_edge_is_a_wrong_answer(labels: dict[str, str]) -> None:
    with pytest.raises(WrongAnswer, match="without an edge"):
        read_buckets([instant("workers ttft samples", "1", slo_class="chat", **labels)], 60.0)


def test_a_term_of_nobody_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswer, match="nobody asked for: 300"):
        read_attained([instant("300", "1", slo_class="chat", met="true")])


def test_attained_is_read_by_window() -> None:
    result = [
        instant("workers 3600", "30", slo_class="chat", met="true"),
        instant("workers 300", "3", slo_class="chat", met="true"),
        instant("workers 300", "1", slo_class="chat", met="false"),
    ]
    assert read_attained(result) == (Attained("chat", 300.0, 4.0, 3.0), Attained("chat", 3600.0, 30.0, 30.0))


@pytest.mark.parametrize(
    ("max_window_s", "covered", "told"),
    [(1e7, "600000", None), (1e7, "4000", 4000.0), (300_000.0, "299000", 299_000.0)],
)
def test_a_long_window_says_how_much_of_it_there_is(max_window_s: float, covered: str, told: float | None) -> None:
    term = f"workers {min(600_000.0, max_window_s):g}"
    result = [instant(term, "9", slo_class="chat", met="true"), instant(f"{term} covered", covered)]
    assert read_long(result, {"chat": 600_000.0, "gone": 600_000.0}, max_window_s) == (
        Attained("chat", 600_000.0, 9.0, 9.0, covered_s=told),
    )


def a_class(by: str, slo_class: str, number: str, *edges: str) -> list[dict[str, Any]]:
    return [
        instant(f"{by} ttft {what}", value, slo_class=slo_class, le=le)
        for le in edges
        for what, value in (("increase", number), ("samples", "9"))
    ]


def test_a_class_that_gateways_measure_is_theirs_alone_with_their_edges() -> None:
    """During a change of promises both may have edges of their own: added up they would be no histogram."""
    result = [
        *a_class("workers", "chat", "5", "0.5", "1", "+Inf"),
        *a_class("gateways", "chat", "7", "0.5", "+Inf"),
        *a_class("workers", "batch", "3", "+Inf"),
    ]
    found = read_buckets(result, 60.0)
    assert found == (
        Buckets("batch", "ttft", 60.0, ((math.inf, 3.0),)),
        Buckets("chat", "ttft", 60.0, ((0.5, 7.0), (math.inf, 7.0))),
    )
    assert read_buckets(result[::-1], 60.0) == found


def test_a_signal_that_gateways_do_not_tell_is_not_made_of_workers_numbers_for_the_same_class() -> None:
    result = [
        *a_class("gateways", "chat", "7", "+Inf"),
        instant("workers e2e increase", "5", slo_class="chat", le="+Inf"),
    ]
    result.append(instant("workers e2e samples", "9", slo_class="chat", le="+Inf"))
    assert [each.signal for each in read_buckets(result, 60.0) or ()] == ["ttft"]


def test_gateways_that_tell_nothing_are_no_zero() -> None:
    workers = a_class("workers", "chat", "5", "1", "+Inf")
    assert read_buckets(workers, 60.0) == (Buckets("chat", "ttft", 60.0, ((1.0, 5.0), (math.inf, 5.0))),)
    assert read_buckets([each for each in workers if "samples" in each["metric"]["term"]], 60.0) == ()


def test_attained_is_of_gateways_where_they_tell_it_and_covers_what_they_have_seen() -> None:
    result = [
        instant("workers 600000", "90", slo_class="chat", met="true"),
        instant("workers 600000 covered", "600000"),
        instant("gateways 600000", "8", slo_class="chat", met="true"),
        instant("gateways 600000", "2", slo_class="chat", met="false"),
        instant("gateways 600000 covered", "4000"),
        instant("workers 600000", "6", slo_class="batch", met="true"),
    ]
    assert read_long(result, {"chat": 600_000.0, "batch": 600_000.0}, 1e7) == (
        Attained("chat", 600_000.0, 10.0, 8.0, covered_s=4000.0),
        Attained("batch", 600_000.0, 6.0, 6.0),
    )
    short = [
        instant("gateways 300", "1", slo_class="chat", met="false"),
        instant("workers 300", "1", slo_class="chat", met="true"),
        instant("workers 3600", "1", slo_class="chat", met="true"),
    ]
    assert read_attained(short) == (Attained("chat", 300.0, 1.0, 0.0), Attained("chat", 3600.0, 1.0, 1.0))
