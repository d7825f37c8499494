"""What callers are told of their limits, in the headers that the clients of each API read. Pure.

Of several scopes, the one with the smallest part left is told. Scopes that only count are not told: nobody is held up
by them. Numbers left are rounded down, times up: who believes them is let in.
Sources: platform.openai.com, guides/rate-limits; docs.anthropic.com, api/rate-limits.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from glm_edge.errors.failure import Failure
from glm_gateway.limits.counters import MINUTE_S, Counters
from glm_gateway.limits.limit import Measure, Unit
from glm_gateway.limits.reserve import Refusal, Scope
from glm_gateway.limits.tokens import PICO
from glm_gateway.surfaces.routes import Api

HEEDED_S = 60.0
"""Clients of both APIs ask again after their own short time where Retry-After is longer than this."""

_SETTLED_ROUNDING = 1e-6
_PER_MINUTE = {
    Measure.REQUESTS: "requests",
    Measure.PROMPT_TOKENS: "prompt tokens",
    Measure.ANSWER_TOKENS: "answer tokens",
    Measure.THINKING_TOKENS: "thinking tokens",
}
_TOKENS = (Measure.PROMPT_TOKENS, Measure.ANSWER_TOKENS, Measure.THINKING_TOKENS)
_ANTHROPIC: Mapping[str, tuple[Measure, ...]] = {
    "requests": (Measure.REQUESTS,),
    "tokens": _TOKENS,
    "input-tokens": (Measure.PROMPT_TOKENS,),
    "output-tokens": (Measure.ANSWER_TOKENS, Measure.THINKING_TOKENS),
}
_OPENAI: Mapping[str, tuple[Measure, ...]] = {"requests": (Measure.REQUESTS,), "tokens": _TOKENS}


class Left(NamedTuple):
    """Of one limit: how much it allows, how much of that is left, and in how many seconds all of it will be."""

    most: int
    left: int
    full_in_s: float


def limit_headers(
    api: Api, scopes: Sequence[Scope], counters: Mapping[str, Counters], now: float
) -> list[tuple[bytes, bytes]]:
    """Return the headers about limits per minute, in the words of an API. Z.ai has none of its own: OpenAI's."""
    words = _ANTHROPIC if api is Api.ANTHROPIC else _OPENAI
    headers = []
    for word, measures in words.items():
        found = least_left(measures, scopes, counters, now)
        if found is None:
            continue
        if api is Api.ANTHROPIC:
            at = datetime.fromtimestamp(math.ceil(now + found.full_in_s), UTC)
            values = {
                f"anthropic-ratelimit-{word}-limit": str(found.most),
                f"anthropic-ratelimit-{word}-remaining": str(found.left),
                f"anthropic-ratelimit-{word}-reset": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            }
        else:
            values = {
                f"x-ratelimit-limit-{word}": str(found.most),
                f"x-ratelimit-remaining-{word}": str(found.left),
                f"x-ratelimit-reset-{word}": duration(found.full_in_s),
            }
        headers += [(name.encode(), value.encode()) for name, value in values.items()]
    return headers


def least_left(
    measures: Sequence[Measure], scopes: Sequence[Scope], counters: Mapping[str, Counters], now: float
) -> Left | None:
    """Return the limit of which the smallest part is left; None: there is none on any of these measures."""
    found = []
    for scope in scopes:
        for measure in measures:
            most = scope.limits.per_minute.get(measure)
            if most is None or scope.limits.only_counts:
                continue
            level = counters.get(scope.name, Counters()).level(measure, scope.limits, now)
            full_in_s = max(0.0, most - level) * MINUTE_S / most if most else 0.0
            left = max(0, math.floor(level + _SETTLED_ROUNDING))
            found.append((level / most if most else 0.0, Left(most, left, full_in_s)))
    return min(found)[1] if found else None


def refused(refusal: Refusal, scopes: Sequence[Scope]) -> tuple[Failure, list[tuple[bytes, bytes]]]:
    """Return what a caller is told that a limit holds up, and headers beside Failure.headers and limit_headers.

    scopes: that were asked for. Who is asked to wait longer than clients heed, or for ever, is told not to try again by
    itself.
    """
    unit = next(
        (scope.limits.budget.unit for scope in scopes if scope.name == refusal.scope and scope.limits.budget), None
    )
    wait_s = refusal.retry_after_s
    seconds = None if wait_s is None else max(1, math.ceil(wait_s - _SETTLED_ROUNDING))
    sentence = f"{_sentence(refusal, unit)}; {_when(refusal, seconds)}"
    if refusal.limit == "context":
        failure = Failure(400, sentence, "invalid_request_error", None, "context_length_exceeded")
    elif refusal.limit == "budget":
        failure = Failure(429, sentence, "insufficient_quota", None, "insufficient_quota", seconds)
    else:
        kind = "requests" if refusal.limit in (Measure.REQUESTS, "concurrency") else "tokens"
        failure = Failure(429, sentence, kind, None, "rate_limit_exceeded", seconds)
    headers = []
    if wait_s is not None:
        headers = [
            (b"retry-after-ms", str(max(1, math.ceil(wait_s * 1000 - _SETTLED_ROUNDING))).encode()),
        ]
    if wait_s is None or wait_s > HEEDED_S:
        headers.append((b"x-should-retry", b"false"))
    return failure, headers


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it, rounded up to a millisecond: 17ms, 1.5s, 6m0s, 1h0m3s."""
    millis = math.ceil(seconds * 1000 - _SETTLED_ROUNDING)
    if millis < 1000:
        return f"{max(0, millis)}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{Decimal(rest) / 1000:f}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text


def _sentence(refusal: Refusal, unit: Unit | None) -> str:
    who, asked, left = refusal.scope, _number(refusal.asked), _number(math.floor(refusal.left + _SETTLED_ROUNDING))
    if refusal.limit == "context":
        return (
            f"one request of {who} may have {refusal.most} tokens, its prompt and its answer together;"
            f" this one asks for {asked}"
        )
    if refusal.limit == "concurrency":
        return f"{who} may have {refusal.most} requests at once, and has as many"
    if refusal.limit == "budget":
        most, asked, left = (_amount(each, unit) for each in (refusal.most, refusal.asked, refusal.left))
        return f"the monthly budget of {who} is {most}, this request may take {asked}, and {left} are left"
    what = _PER_MINUTE[Measure(refusal.limit)]
    return f"{who} may use {refusal.most} {what} a minute, this request asks for {asked}, and {left} are left"


def _when(refusal: Refusal, seconds: int | None) -> str:
    if seconds is None:
        return "it never fits: ask for less" if refusal.most else "none is allowed"
    return f"try again in {seconds} s"


def _amount(amount: float, unit: Unit | None) -> str:
    if unit is Unit.MONEY:
        text = f"{Decimal(int(amount)) / PICO:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{_number(amount)} tokens"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
