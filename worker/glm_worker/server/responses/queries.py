"""What may stand behind the `?` of a stored response. Everything else is refused by name. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.datastructures import QueryParams

from glm_worker.errors import RequestRefused
from glm_worker.server.refusals import shortened
from glm_worker.server.thinking.resolve import IGNORED_HEADER

Json = dict[str, Any]

MAX_PAGE = 100
_MAX_DIGITS = 9

READING: Mapping[str, Json] = {
    "stream": {"type": "boolean", "default": False},
    "starting_after": {"type": "integer", "minimum": 0, "maximum": 10**_MAX_DIGITS - 1},
    "include_obfuscation": {"type": "boolean", "description": "Has no effect."},
}
PAGE: Mapping[str, Json] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 20},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "after": {"type": "string", "description": "The id of the item before the first one."},
}
"""Their JSON schemas, by name."""


@dataclass(frozen=True)
class Reading:
    """How to read a response. starting_after: the number of the last event that the client has; -1: none."""

    stream: bool = False
    starting_after: int = -1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A part of a list. after: the id of the item before it, in its order."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None

    def of(self, items: Sequence[Json]) -> Json:
        """Return this page of the items, oldest first, as the API lists them. Raises RequestRefused."""
        ordered = list(items) if self.order == "asc" else list(reversed(items))
        if self.after is not None:
            place = next((number for number, item in enumerate(ordered) if item["id"] == self.after), None)
            if place is None:
                raise _refused("after", f"after: there is no item {shortened(self.after)} in this list")
            ordered = ordered[place + 1 :]
        page = ordered[: self.limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": len(ordered) > len(page),
        }


def reading_of(query: QueryParams) -> Reading:
    _check_names(query, READING)
    stream = _flag(query, "stream")
    if "starting_after" in query and not stream:
        raise _refused("starting_after", "starting_after is only allowed together with stream=true")
    hides = _flag(query, "include_obfuscation")
    return Reading(
        stream=stream,
        starting_after=_number(query, "starting_after", 0, 10**_MAX_DIGITS - 1, default=-1),
        headers={IGNORED_HEADER: "include_obfuscation"} if hides else {},
    )


def page_of(query: QueryParams) -> Page:
    _check_names(query, PAGE)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _refused("order", f"order is {shortened(order)}; allowed: asc, desc")
    return Page(
        limit=_number(query, "limit", 1, MAX_PAGE, default=20),
        order="asc" if order == "asc" else "desc",
        after=query.get("after"),
    )


def _check_names(query: QueryParams, known: Iterable[str]) -> None:
    for name in query:
        if name in ("include", "include[]"):
            raise _refused(name, "include is said when a response is made; what was included is stored with it")
        if name not in known:
            raise RequestRefused(
                f"unknown parameter {shortened(name)}; allowed: {', '.join(known)}",
                param=shortened(name),
                code="unknown_parameter",
            )


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise _refused(name, f"{name} is {shortened(value)}; allowed: true, false")
    return value == "true"


def _number(query: QueryParams, name: str, least: int, most: int, *, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not is_number or not least <= int(text) <= most:
        raise _refused(name, f"{name} is {shortened(text)}; allowed: {least} to {most}")
    return int(text)


def _refused(param: str, message: str) -> RequestRefused:
    return RequestRefused(message, param=param, code="invalid_value")
