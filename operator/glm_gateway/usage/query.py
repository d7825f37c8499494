"""`GET /v1/usage`: what a key has used, told to who has the key. Pure."""

from datetime import date
from typing import Any

from glm_edge.errors.failure import Failure
from glm_gateway.usage.export import rows
from glm_gateway.usage.ledger import Account, Ledger, Sum

Json = dict[str, Any]


def usage_answer(
    ledger: Ledger, key: str, start: str | None, end: str | None, *, today: str, kept_since: str, journal: str
) -> Json | Failure:
    """Return the sums of one key by day and model, and of all together.

    start, end: days in UTC as in 2026-11-29, both within; by default from the first of this month until today.
    kept_since: the first day of which there are sums. journal: the id of the one that they are of.
    """
    start, end = start or f"{today[:7]}-01", end or today
    for name, day in (("start", start), ("end", end)):
        if not _is_day(day):
            return _refused(name, f"{name} must be a day as in {today}, and is none")
    if start > end:
        return _refused("start", f"start {start} is after end {end}")
    if start < kept_since:
        return _refused("start", f"start {start} is too early; usage is told since {kept_since}")
    found = [(account, sum_) for account, sum_ in ledger.sums(key=key) if key and start <= account.day <= end]
    total = sum((sum_ for _, sum_ in found), Sum())
    return {
        "object": "usage",
        "key": key,
        "start": start,
        "end": end,
        "journal": journal,  # of a replica with another one this is not all
        "data": [_own(row) for row in rows(found)],
        "total": {
            name: value
            for name, value in _own(rows([(Account("", key, ""), total)])[0]).items()
            if name not in ("day", "model")
        },
    }


def _own(row: Json) -> Json:
    return {name: value for name, value in row.items() if name != "key"}


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _refused(param: str, sentence: str) -> Failure:
    return Failure(400, sentence, "invalid_request_error", param, "invalid_value")
