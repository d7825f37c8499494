"""Requests by time of arrival: what is put into a simulation. Pure; files are read by whoever has them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from glm_operator.api.slo import DEFAULT_CLASS, Slo
from glm_operator.autoscale.simulate.errors import InputError


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. at_s: seconds since the trace began."""

    at_s: float
    prompt_tokens: int  # that no cache holds
    output_tokens: int  # thinking included; 1 or more
    thinking_tokens: int = 0
    is_thinking: bool = False


def class_of(slo: Slo, arrival: Arrival) -> str:
    """Return the class that a worker would count this request to. A trace has no headers: their classes match none."""
    mode = "Enabled" if arrival.is_thinking else "Disabled"
    for each in slo.classes:
        if each.match.header is None and each.match.thinking in ("Any", mode):
            return each.name
    return DEFAULT_CLASS


def read_trace(lines: Iterable[str]) -> tuple[Arrival, ...]:
    """Read a trace in CSV with a header line, in order of arrival.

    Columns: `at_s` (seconds) or `TIMESTAMP` (ISO 8601, UTC where it has no offset); `prompt_tokens` or `ContextTokens`;
    `output_tokens` or `GeneratedTokens`; if it likes, `thinking_tokens` (more than 0: the request thinks).
    Raises InputError with the line.
    """
    rows = csv.DictReader(lines)
    columns = set(rows.fieldnames or ())
    time = _either(columns, "at_s", "TIMESTAMP")
    prompt = _either(columns, "prompt_tokens", "ContextTokens")
    output = _either(columns, "output_tokens", "GeneratedTokens")
    arrivals = []
    for row in rows:
        where = f"line {rows.line_num} of the trace"
        at_s = _seconds(row[time], where) if time == "at_s" else _timestamp(row[time], where)
        thinking = _tokens(row.get("thinking_tokens") or "0", where, least=0)
        generated = _tokens(row[output], where, least=1)
        if thinking > generated:
            raise InputError(f"{where} has {thinking} thinking tokens of {generated} output tokens; those include them")
        arrivals.append(
            Arrival(
                at_s=at_s,
                prompt_tokens=_tokens(row[prompt], where, least=1),
                output_tokens=generated,
                thinking_tokens=thinking,
                is_thinking=thinking > 0,
            )
        )
    if not arrivals:
        raise InputError("the trace has no requests")
    return from_zero(arrivals)


def from_zero(arrivals: Sequence[Arrival]) -> tuple[Arrival, ...]:
    """Order arrivals and move the first to second 0."""
    first = min(each.at_s for each in arrivals)
    moved = [
        Arrival(each.at_s - first, each.prompt_tokens, each.output_tokens, each.thinking_tokens, each.is_thinking)
        for each in arrivals
    ]
    return tuple(sorted(moved, key=lambda each: each.at_s))


def _either(columns: set[str], ours: str, theirs: str) -> str:
    for name in (ours, theirs):
        if name in columns:
            return name
    raise InputError(f"the trace has columns {', '.join(sorted(columns)) or 'none'}; it needs {ours} or {theirs}")


def _seconds(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1e12:
        raise InputError(f"{where} has at_s {text!r}; it is a number of seconds, 0 or more")
    return value


def _timestamp(text: str | None, where: str) -> float:
    try:
        found = datetime.fromisoformat((text or "")[:26])  # fromisoformat takes microseconds; Azure's have a digit more
    except ValueError:
        raise InputError(f"{where} has TIMESTAMP {text!r}; it is a time as 2023-11-16 18:17:03.979") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _tokens(text: str | None, where: str, *, least: int) -> int:
    try:
        value = int(text or "")
    except ValueError:
        value = -1
    if value < least:
        raise InputError(f"{where} has {text or ''!r} tokens; it is a whole number, {least} or more")
    return value
