"""Callers are told of limits in headers of their API, and who waits as long as told is let in."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge.errors import anthropic, openai
from glm_gateway.limits.counters import Bucket, Counters
from glm_gateway.limits.headers import duration, limit_headers, refused
from glm_gateway.limits.limit import Budget, Limits, Measure, Unit
from glm_gateway.limits.reserve import Granted, Refusal, Scope, reserve
from glm_gateway.limits.tokens import PICO, Usage
from glm_gateway.surfaces.routes import Api

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
MINUTES = {Measure.REQUESTS: 60, Measure.PROMPT_TOKENS: 1000, Measure.ANSWER_TOKENS: 600}


def headers(api: Api, scopes: list[Scope], counters: dict[str, Counters]) -> dict[str, str]:
    found = limit_headers(api, scopes, counters, NOW)
    assert len(dict(found)) == len(found)
    return {name.decode(): value.decode() for name, value in found}


def levels(**left: float) -> Counters:
    return Counters({Measure(measure): Bucket(level, NOW) for measure, level in left.items()})


def refusal(**fields: object) -> Refusal:
    plain = {"scope": "key a", "limit": "requests", "most": 3, "asked": 1.0, "left": 0.0, "retry_after_s": 20.0}
    return Refusal(**{**plain, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("api", [Api.OPENAI, Api.ZAI])
def test_openais_clients_are_told_requests_and_the_tokens_that_are_scarcest(api: Api) -> None:
    scope = Scope("key a", Limits(per_minute=MINUTES))
    counters = {"key a": levels(requests=58.5, prompt_tokens=900, answer_tokens=60)}
    assert headers(api, [scope], counters) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "1.5s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "54s",
    }


def test_anthropics_clients_are_told_input_and_output_as_well() -> None:
    scope = Scope("key a", Limits(per_minute=MINUTES))
    found = headers(Api.ANTHROPIC, [scope], {"key a": levels(requests=58.5, prompt_tokens=900, answer_tokens=60)})
    assert found["anthropic-ratelimit-requests-reset"] == "2026-11-29T12:00:02Z"
    assert found["anthropic-ratelimit-input-tokens-remaining"] == "900"
    assert found["anthropic-ratelimit-output-tokens-remaining"] == "60"
    assert found["anthropic-ratelimit-tokens-limit"] == "600"
    assert len(found) == 12


def test_of_a_key_and_its_group_the_scarcer_is_told() -> None:
    own, group = (
        Scope("key a", Limits(per_minute={Measure.REQUESTS: 60})),
        Scope("group t", Limits(per_minute={Measure.REQUESTS: 600})),
    )
    found = headers(Api.OPENAI, [own, group], {"key a": levels(requests=30), "group t": levels(requests=60)})
    assert (found["x-ratelimit-limit-requests"], found["x-ratelimit-remaining-requests"]) == ("600", "60")


def test_nobody_is_told_of_limits_that_hold_nobody_up() -> None:
    counting = Scope("key a", Limits(per_minute=MINUTES, only_counts=True))
    assert headers(Api.OPENAI, [counting, Scope("group t", Limits())], {}) == {}


def test_a_level_below_nothing_is_told_as_nothing() -> None:
    scope = Scope("key a", Limits(per_minute={Measure.ANSWER_TOKENS: 60}))
    found = headers(Api.OPENAI, [scope], {"key a": levels(answer_tokens=-30)})
    assert (found["x-ratelimit-remaining-tokens"], found["x-ratelimit-reset-tokens"]) == ("0", "1m30s")


def test_a_limit_of_nothing_is_told() -> None:
    scope = Scope("key a", Limits(per_minute={Measure.REQUESTS: 0}))
    assert headers(Api.OPENAI, [scope], {})["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0171, "18ms"), (1.5, "1.5s"), (1, "1s"), (360, "6m0s"), (3603.25, "1h0m3.25s"), (59.9999, "1m0s")],
)
def test_times_are_written_as_openais_clients_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 10**7))
def test_a_time_is_read_as_no_less_than_it_is(seconds: float) -> None:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    text = duration(seconds)
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    assert "".join(number + unit for number, unit in parts) == text
    assert seconds - 1e-6 <= sum(float(number) * units[unit] for number, unit in parts) <= seconds + 0.001 + 1e-6


def test_a_refusal_names_limit_asked_left_and_when() -> None:
    failure, found = refused(refusal(limit="answer_tokens", most=600, asked=400.0, left=120.9, retry_after_s=27.25), [])
    assert failure.message == (
        "key a may use 600 answer tokens a minute, this request asks for 400, and 120 are left; try again in 28 s"
    )
    assert (failure.status, failure.retry_after_s) == (429, 28)
    assert failure.headers == {"retry-after": "28"}
    assert dict(found) == {b"retry-after-ms": b"27250"}
    assert openai.error_body(failure)["error"] | {"message": ""} == {
        "message": "",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert anthropic.error_body(failure)["error"]["type"] == "rate_limit_error"


def test_clients_are_told_not_to_ask_again_where_that_cannot_help() -> None:
    for wait_s in (None, 61.0):
        assert dict(refused(refusal(retry_after_s=wait_s), [])[1])[b"x-should-retry"] == b"false"
    failure, found = refused(refusal(retry_after_s=None, most=100, asked=200.0, limit="prompt_tokens"), [])
    assert failure.message.endswith("; it never fits: ask for less")
    assert failure.headers == {}
    assert b"retry-after-ms" not in dict(found)


def test_a_budget_is_told_in_its_unit_and_exactly() -> None:
    month = refusal(limit="budget", most=5 * PICO // 2, asked=PICO / 4, left=float(PICO // 8), retry_after_s=86_400.0)
    failure, _ = refused(month, [Scope("key a", Limits(budget=Budget(5 * PICO // 2, Unit.MONEY)))])
    assert failure.message == (
        "the monthly budget of key a is 2.5, this request may take 0.25, and 0.125 are left; try again in 86400 s"
    )
    assert failure.code == "insufficient_quota"
    assert (
        "is 100 tokens"
        in refused(refusal(limit="budget", most=100), [Scope("key a", Limits(budget=Budget(100, Unit.TOKENS)))])[
            0
        ].message
    )


def test_a_context_that_is_too_long_is_no_matter_of_waiting() -> None:
    failure, _ = refused(refusal(limit="context", most=100, asked=150.0, left=100.0, retry_after_s=None), [])
    assert (failure.status, failure.code, failure.retry_after_s) == (400, "context_length_exceeded", None)
    assert anthropic.error_body(failure)["error"]["message"].startswith("prompt is too long")


def test_as_many_as_run_is_told() -> None:
    failure, _ = refused(refusal(limit="concurrency", most=2, retry_after_s=1.0), [])
    assert failure.message == "key a may have 2 requests at once, and has as many; try again in 1 s"


amounts = st.builds(Usage, prompt=st.integers(0, 400), answer=st.integers(0, 400), thinking=st.integers(0, 400))


@given(st.lists(st.tuples(st.floats(0, 30), amounts), max_size=20), st.integers(1, 500) | st.integers(10**5, 10**9))
def test_who_waits_as_long_as_either_header_says_is_let_in(steps: list[tuple[float, Usage]], per_minute: int) -> None:
    scope = Scope("key a", Limits(per_minute=dict.fromkeys(Measure, per_minute), budget=Budget(10**12, Unit.TOKENS)))
    counters: dict[str, Counters] = {}
    now = NOW
    for pause, asked in steps:
        now += pause
        found = reserve([scope], counters, asked, now)
        if isinstance(found, Refusal):
            if found.retry_after_s is None:
                continue
            failure, told = refused(found, [scope])
            whole_s = int(failure.headers["retry-after"])
            for wait_s in (int(dict(told)[b"retry-after-ms"]) / 1000, whole_s):
                assert isinstance(reserve([scope], counters, asked, now + wait_s), Granted)
            now += whole_s
            found = reserve([scope], counters, asked, now)
        assert isinstance(found, Granted)
        counters = dict(found.counters)
