"""Sums as others read them: CSV for a table, JSON lines for a program."""

import csv
import io
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from glm_gateway.limits.tokens import PICO
from glm_gateway.usage.ledger import Account, Sum

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a table would compute what begins like this
COLUMNS = (
    "day",
    "key",
    "model",
    "requests",
    "failed",
    "prompt_tokens",
    "cached_tokens",
    "answer_tokens",
    "thinking_tokens",
    "cost",
    "seconds",
)


def rows(sums: Iterable[tuple[Account, Sum]]) -> list[dict[str, Any]]:
    """Return a row a sum. cost: in the unit of prices, as text, exact."""
    return [
        {
            "day": account.day,
            "key": account.key,
            "model": account.model,
            "requests": found.num_requests,
            "failed": found.num_failed,
            "prompt_tokens": found.usage.prompt,
            "cached_tokens": found.usage.cached,
            "answer_tokens": found.usage.answer,
            "thinking_tokens": found.usage.thinking,
            "cost": f"{Decimal(found.cost) / PICO:f}",
            "seconds": round(found.seconds, 3),
        }
        for account, found in sums
    ]


def as_csv(sums: Iterable[tuple[Account, Sum]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(sums):
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return text.getvalue()


def as_json_lines(sums: Iterable[tuple[Account, Sum]]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows(sums))


def _plain(value: object) -> object:
    """Return a text that no table takes for a formula: names of models are not ours."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
