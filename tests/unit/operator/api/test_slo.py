"""What may be promised, and what reaches the workers of it."""

from typing import Any

import pytest

from glm_operator.api.spec import InvalidSpec, parse_deployment
from unit.operator.operator_builders import a_body, a_deployment


def refusal(*classes: dict[str, Any]) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_deployment(a_body(slo={"classes": list(classes)}))
    return str(caught.value)


def test_a_class_promises_95_per_cent_and_99_over_30_days_unless_it_says_otherwise() -> None:
    (only,) = a_deployment(slo={"classes": [{"name": "chat", "ttft": "1s"}]}).spec.slo.classes
    assert (only.percentile, only.objective, only.window, only.match.thinking) == (95, 99, "30d", "Any")


def test_thresholds_are_seconds_by_signal() -> None:
    promised = {"ttft": "800ms", "ttfa": "1.5s", "itl": "50ms", "e2e": "1m"}
    (only,) = a_deployment(slo={"classes": [{"name": "chat", **promised}]}).spec.slo.classes
    assert only.thresholds == {"ttft": 0.8, "ttfa": 1.5, "itl": 0.05, "e2e": 60}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ttft": None}, "promises nothing; give it ttft, ttfa, itl or e2e"),
        ({"name": "default"}, "default is taken"),
        ({"name": "Chat"}, "allowed is lower-case letters, digits and dashes"),
        ({"ttft": "1"}, "allowed is a number and a unit of ms, s, m, h or d"),
        ({"ttft": "2h"}, "ttft of class chat is 7200 s; allowed is 1ms to 1h"),
        ({"ttft": "0s"}, "ttft of class chat is 0 s; allowed is 1ms to 1h"),
        ({"window": "1y"}, "allowed is a number and a unit"),
        ({"window": "10s"}, "window of class chat is 10s; allowed is 5m to 90d"),
        ({"match": {"thinking": "on"}}, "thinking is 'on'"),
        ({"match": {"thinking": True}}, "thinking is True"),
        ({"match": {"header": {"name": "x tier", "value": "gold"}}}, "allowed is the name of a header"),
        ({"match": {"header": {"name": "x-tier", "value": "gold\n"}}}, "visible ASCII characters"),
        ({"percentile": 100}, "percentile is 100"),
        ({"objective": 100}, "objective is 100"),
    ],
)
def test_a_class_that_cannot_be_is_refused_with_what_is_allowed(change: dict[str, Any], said: str) -> None:
    assert said in refusal({"name": "chat", "ttft": "1s", **change})


def test_two_classes_of_one_name_are_refused() -> None:
    assert "classes chat are there twice" in refusal({"name": "chat", "ttft": "1s"}, {"name": "chat", "itl": "1s"})


def test_workers_get_classes_in_their_order_with_thresholds_in_seconds_and_shares() -> None:
    header = {"name": "x-tier", "value": "gold"}
    classes = [
        {"name": "gold", "match": {"thinking": "Enabled", "header": header}, "ttfa": "2s", "objective": 99.9},
        {"name": "chat", "ttft": "800ms"},
    ]
    assert a_deployment(slo={"classes": classes}).spec.slo.for_workers() == {
        "classes": [
            {
                "name": "gold",
                "thinking": "enabled",
                "header": header,
                "thresholds_s": {"ttfa": 2.0},
                "objective": pytest.approx(0.999),
            },
            {
                "name": "chat",
                "thinking": "any",
                "header": None,
                "thresholds_s": {"ttft": 0.8},
                "objective": pytest.approx(0.99),
            },
        ]
    }


def test_promises_and_scaling_are_no_part_of_what_a_group_is_made_from() -> None:
    plain = a_deployment().spec.normal_form()
    assert a_deployment(slo={"classes": [{"name": "chat", "ttft": "1s"}]}).spec.normal_form() == plain
    assert a_deployment(scaling={"max": 3}).spec.normal_form() == plain
