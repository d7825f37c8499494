"""`GET /v1/usage` tells a key's owner its own usage, and nobody else's."""

from datetime import UTC, datetime
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.limits.tokens import PICO
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.ledger import Ledger
from glm_gateway.usage.query import Json, usage_answer

TODAY, SINCE = "2026-11-29", "2026-10-01"


def entry(number: int, day: str, **fields: object) -> Entry:
    at = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp()
    plain = {"key": "a", "model": "m", "api": "openai", "outcome": "finished"}
    return Entry(id=f"r{number}", at=at, **{**plain, **fields})  # type: ignore[arg-type]


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.add_all(
        [
            entry(1, "2026-10-31", prompt=100),
            entry(2, "2026-11-01", prompt=7, cached=2, answer=5, thinking=3, cost=PICO // 4, e2e_s=0.5),
            entry(3, "2026-11-29", prompt=1, model="n", outcome="failed"),
            entry(4, "2026-11-29", key="b", prompt=1000),
        ]
    )
    return made


def told(ledger: Ledger, key: str = "a", start: str | None = None, end: str | None = None) -> Json:
    found = usage_answer(ledger, key, start, end, today=TODAY, kept_since=SINCE, journal="1a2b3c4d")
    assert not isinstance(found, Failure), found
    return found


def test_by_default_this_month_is_told_by_day_and_model(ledger: Ledger) -> None:
    found = told(ledger)
    first: dict[str, Any] = {
        "day": "2026-11-01",
        "model": "m",
        "requests": 1,
        "failed": 0,
        "prompt_tokens": 7,
        "cached_tokens": 2,
        "answer_tokens": 5,
        "thinking_tokens": 3,
        "cost": "0.25",
        "seconds": 0.5,
    }
    assert (found["start"], found["end"], found["key"]) == ("2026-11-01", TODAY, "a")
    assert found["data"][0] == first
    assert [row["model"] for row in found["data"]] == ["m", "n"]
    assert found["total"] | {"requests": 2, "failed": 1, "prompt_tokens": 8} == found["total"]


def test_both_ends_are_within(ledger: Ledger) -> None:
    assert told(ledger, start="2026-10-31", end="2026-11-01")["total"]["prompt_tokens"] == 107


@pytest.mark.parametrize("key", ["", "c", "A"])
def test_nobody_is_told_of_another_key(ledger: Ledger, key: str) -> None:
    assert told(ledger, key)["total"]["requests"] == 0


@pytest.mark.parametrize(
    ("start", "end", "param", "sentence"),
    [
        ("yesterday", None, "start", "start must be a day as in 2026-11-29, and is none"),
        (None, "2026-11-31", "end", "end must be a day"),
        ("20261101", None, "start", "must be a day"),
        ("2026-11-02", "2026-11-01", "start", "start 2026-11-02 is after end 2026-11-01"),
        ("2026-09-30", None, "start", "start 2026-09-30 is too early; usage is told since 2026-10-01"),
    ],
)
def test_days_that_cannot_be_told_are_refused(
    ledger: Ledger, start: str | None, end: str | None, param: str, sentence: str
) -> None:
    found = usage_answer(ledger, "a", start, end, today=TODAY, kept_since=SINCE, journal="1a2b3c4d")
    assert isinstance(found, Failure)
    assert (found.status, found.param) == (400, param)
    assert sentence in found.message
