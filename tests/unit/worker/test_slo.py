"""Promises: what is accepted, whose they are, and whether they were kept."""

import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from glm_edge.metrics.promises import Latencies, bucket_edges, is_met
from glm_worker.errors import RequestRefused
from glm_worker.messages import HeaderMatch, Signal, Slo, SloClass
from glm_worker.server.slo import NoHeaders, class_of, parse_slo, slo_digest


def a_class(name: str = "fast", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "thinking": "any",
        "header": None,
        "thresholds_s": {"ttft": 0.5},
        "objective": 0.99,
        **fields,
    }


def body(*classes: dict[str, Any]) -> bytes:
    return json.dumps({"classes": list(classes)}).encode()


def refusal(raw: bytes) -> str:
    with pytest.raises(RequestRefused) as caught:
        parse_slo(raw)
    assert caught.value.status == 422
    return caught.value.message


def test_promises_are_read() -> None:
    slo = parse_slo(body(a_class(header={"name": "x-tier", "value": "gold"}, thinking="enabled")))
    (fast,) = slo.classes
    assert (fast.name, fast.thinking, fast.header) == ("fast", "enabled", HeaderMatch("x-tier", "gold"))
    assert (fast.thresholds_s, fast.objective) == ({"ttft": 0.5}, 0.99)


def test_no_class_at_all_is_a_promise_of_nothing() -> None:
    assert parse_slo(body()) == Slo([])


@pytest.mark.parametrize("seconds", [0.001, 3600])
def test_the_shortest_and_the_longest_threshold_are_accepted(seconds: float) -> None:
    assert parse_slo(body(a_class(thresholds_s={"e2e": seconds}))).classes[0].thresholds_s == {"e2e": seconds}


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ([a_class(f"c{n}") for n in range(9)], "there are 9 classes; at most 8 are allowed"),
        ([a_class(), a_class()], "class fast is there twice; names must differ"),
        ([a_class("default")], "the class name default is taken: it is for the requests that no class matches"),
        ([a_class(thresholds_s={"ttft": 0.0009})], "ttft of class fast is 0.0009 s; allowed is 0.001 to 3600 seconds"),
        ([a_class(thresholds_s={"e2e": 3601})], "e2e of class fast is 3601 s; allowed is 0.001 to 3600 seconds"),
        ([a_class(thresholds_s={})], "class fast promises nothing; give it at least one of ttft, ttfa, itl, e2e in"),
        ([a_class(objective=1)], "objective of class fast is 1; allowed is a share between 0 and 1, as in 0.99"),
        ([a_class(objective=0)], "objective of class fast is 0; allowed is"),
        ([a_class("Fast")], "the class name 'Fast' is wrong; allowed are 1 to 32 lower-case letters"),
        ([a_class("x" * 33)], "is wrong; allowed are 1 to 32 lower-case letters"),
        ([a_class(header={"name": "x tier", "value": "a"})], "header 'x tier' of class fast is no name of a header"),
        ([a_class(header={"name": "x-tier", "value": " a"})], "the value of header x-tier of class fast is wrong"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(classes: list[dict[str, Any]], sentence: str) -> None:
    assert sentence in refusal(body(*classes))


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"classes": [{"name": "\xff"}]}', "utf-8"),
        (b"{}", "`classes`"),
        (body(a_class(thinking="on")), "thinking"),
        (body(a_class(thresholds_s={"tpot": 1})), "tpot"),
        (body(a_class(thresholds_s={"ttft": "1s"})), "thresholds_s"),
        (body(a_class(percentile=95)), "percentile"),
        (body({"name": "fast", "objective": 0.9}), "thresholds_s"),
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_place(raw: bytes, where: str) -> None:
    assert where in refusal(raw)


def test_equal_promises_have_equal_digests_however_they_are_written() -> None:
    written = body(a_class(thresholds_s={"ttft": 1, "e2e": 20}))
    again = json.dumps(
        {"classes": [dict(reversed(a_class(thresholds_s={"e2e": 20.0, "ttft": 1.0}).items()))]}, indent=2
    )
    short = json.dumps({"classes": [{"name": "fast", "thresholds_s": {"ttft": 1, "e2e": 20}, "objective": 0.99}]})
    digests = {slo_digest(parse_slo(each)) for each in (written, again.encode(), short.encode())}
    assert len(digests) == 1
    assert len(digests.pop()) == 16


@pytest.mark.parametrize(
    "other", [{"name": "slow"}, {"thinking": "enabled"}, {"thresholds_s": {"ttft": 0.6}}, {"objective": 0.9}]
)
def test_other_promises_have_another_digest(other: dict[str, Any]) -> None:
    assert slo_digest(parse_slo(body(a_class(**other)))) != slo_digest(parse_slo(body(a_class())))


def test_the_order_of_classes_is_a_part_of_the_promise() -> None:
    one, two = a_class("one"), a_class("two")
    assert slo_digest(parse_slo(body(one, two))) != slo_digest(parse_slo(body(two, one)))


GOLD = HeaderMatch("X-Tier", "gold")
CLASSES = [
    SloClass(name="gold-thought", thinking="enabled", header=GOLD, thresholds_s={}, objective=0.9),
    SloClass(name="gold", header=GOLD, thresholds_s={}, objective=0.9),
    SloClass(name="thought", thinking="enabled", thresholds_s={}, objective=0.9),
    SloClass(name="quick", thinking="disabled", header=HeaderMatch("x-app", "chat"), thresholds_s={}, objective=0.9),
]


@pytest.mark.parametrize(
    ("thinking", "headers", "name"),
    [
        (True, {"x-tier": "gold"}, "gold-thought"),
        (False, {"x-tier": "gold"}, "gold"),
        (False, {"X-TIER": "gold"}, "gold"),
        (False, {"x-tier": "Gold"}, None),
        (True, {"x-tier": "silver"}, "thought"),
        (True, {}, "thought"),
        (False, {"x-app": "chat"}, "quick"),
        (True, {"x-app": "chat"}, "thought"),
        (False, {}, None),
    ],
)
def test_the_first_class_that_matches_by_thinking_and_header_counts(
    thinking: bool, headers: dict[str, str], name: str | None
) -> None:
    found = class_of(CLASSES, thinking=thinking, headers=Headers(headers))
    assert (found and found.name) == name


def test_a_header_that_is_there_twice_matches_by_either_value() -> None:
    headers = Headers(raw=[(b"x-tier", b"silver"), (b"x-tier", b"gold")])
    found = class_of(CLASSES, thinking=False, headers=headers)
    assert found is not None
    assert found.name == "gold"


def test_who_sends_no_headers_is_matched_by_thinking_alone() -> None:
    found = class_of(CLASSES, thinking=True, headers=NoHeaders())
    assert found is not None
    assert found.name == "thought"


@pytest.mark.parametrize(
    ("thresholds", "measured", "is_kept"),
    [
        ({"ttft": 0.5}, {"ttft": 0.5}, True),
        ({"ttft": 0.5}, {"ttft": 0.500001}, False),
        ({"ttfa": 2.0}, {"ttfa": 3.0}, False),
        ({"ttfa": 2.0}, {"ttfa": None, "e2e": 1.9}, True),
        ({"ttfa": 2.0}, {"ttfa": None, "e2e": 2.1}, False),
        ({"itl": 0.1}, {"itl": None}, True),
        ({"itl": 0.1}, {"itl": 0.11}, False),
        ({"e2e": 10.0}, {"e2e": 10.0}, True),
        ({"ttft": 0.5, "e2e": 10.0}, {"ttft": 0.4, "e2e": 11.0}, False),
        ({}, {"ttft": 99.0}, True),
    ],
)
def test_a_promise_is_kept_when_every_threshold_is(
    thresholds: dict[Signal, float], measured: dict[str, Any], is_kept: bool
) -> None:
    fast: dict[str, Any] = {"ttft": 0.1, "ttfa": 0.2, "itl": 0.01, "e2e": 1.0}
    assert is_met(thresholds, Latencies(**{**fast, **measured})) is is_kept


def test_edges_are_the_usual_ones_and_a_threshold_with_its_half_and_double() -> None:
    assert bucket_edges((0.1, 0.5, 1.0), 0.6) == (0.1, 0.3, 0.5, 0.6, 1.0, 1.2)
    assert bucket_edges((0.1, 0.5, 1.0), 0.5) == (0.1, 0.25, 0.5, 1.0)
    assert bucket_edges((0.1, 0.5), None) == (0.1, 0.5)
