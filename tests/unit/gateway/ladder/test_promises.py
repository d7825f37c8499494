"""A request has the promise of the first class that surely matches it, as at its worker."""

from typing import Any

import pytest

from glm_gateway.ladder.config import SloConfig
from glm_gateway.ladder.promises import class_of, first_token_s, told_headers

THINKING = {"name": "deep", "thinking": "enabled", "thresholds_s": {"ttft": 5.0}}
QUICK = {"name": "quick", "thinking": "disabled", "thresholds_s": {"ttft": 0.5, "e2e": 9.0}}
GOLD = {"name": "gold", "header": {"name": "X-Tier", "value": "gold"}, "thresholds_s": {"ttft": 0.2}}
REST = {"name": "rest", "thresholds_s": {"e2e": 60.0}}


def slo(*classes: dict[str, Any]) -> SloConfig:
    return SloConfig.model_validate({"classes": classes})


@pytest.mark.parametrize(
    ("mode", "headers", "name"),
    [
        ("enabled", [], "deep"),
        ("disabled", [], "quick"),
        (None, [], "rest"),
        ("auto", [], "rest"),
        (None, [(b"x-tier", b"gold")], "gold"),
        (None, [(b"x-tier", b"silver"), (b"x-tier", b"gold")], "gold"),
        (None, [(b"x-tier", b"Gold")], "rest"),
        ("enabled", [(b"x-tier", b"gold")], "deep"),
    ],
)
def test_the_first_class_that_surely_matches_counts(
    mode: str | None, headers: list[tuple[bytes, bytes]], name: str
) -> None:
    found = class_of(slo(THINKING, QUICK, GOLD, REST), mode=mode, headers=headers)
    assert found is not None
    assert found.name == name


def test_no_class_is_no_promise() -> None:
    assert class_of(None, mode="enabled", headers=[]) is None
    assert class_of(slo(QUICK), mode="enabled", headers=[]) is None
    assert first_token_s(None) is None


def test_only_a_first_token_is_waited_for() -> None:
    assert first_token_s(class_of(slo(QUICK), mode="disabled", headers=[])) == 0.5
    assert first_token_s(class_of(slo(REST), mode="disabled", headers=[])) is None


def test_workers_get_the_headers_that_classes_name_and_no_secret() -> None:
    leaks = {"name": "bad", "header": {"name": "Authorization", "value": "x"}, "thresholds_s": {"ttft": 1.0}}
    forged = {"name": "worse", "header": {"name": "x-glm-role", "value": "x"}, "thresholds_s": {"ttft": 1.0}}
    headers = [(b"x-tier", b"gold"), (b"x-tier", b"two"), (b"authorization", b"x"), (b"x-glm-role", b"x"), (b"a", b"b")]
    assert told_headers(slo(GOLD, leaks, forged), headers) == headers[:2]
    assert told_headers(None, headers) == []
