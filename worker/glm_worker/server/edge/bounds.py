"""The bounds of a JSON body, checked before any object is made of it.

A body of some megabytes can be a million empty lists: small to send, slow to read (the parser holds up every stream of
the server meanwhile) and large in memory. So brackets, commas and strings are counted first, by operations on bytes
that take some milliseconds a megabyte, and what is past a bound is refused unread.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glm_worker.errors import RequestRefused
from glm_worker.server.refusals import shortened


@dataclass(frozen=True)
class JsonBounds:
    """containers: objects and lists. values: in lists and objects, of which token ids are the most that is honest.

    What is within them is read at once, and holds up the streams beside it for about 20 ms. The longest loops of agents
    have a quarter of it.
    """

    containers: int = 15_000
    strings: int = 40_000  # keys and values
    values: int = 200_000
    depth: int = 64


_SLICE = 2**20
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{}[],'))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
DEFAULT = JsonBounds()


def check_json(body: bytes, bounds: JsonBounds = DEFAULT) -> None:
    """Raise RequestRefused for a body past a bound, with a key that is there twice, or with half a surrogate pair.

    What is no JSON at all passes: the parser that reads it for good says what is wrong with it.
    """
    structure = _structure(body, bounds)
    num_containers = structure.count(b"{") + structure.count(b"[")
    if num_containers > bounds.containers:
        raise _too_much(f"{num_containers} objects and lists", bounds.containers)
    num_values = structure.count(b",") + num_containers
    if num_values > bounds.values:
        raise _too_much(f"at least {num_values} values", bounds.values)
    depth = _depth(structure)
    if depth > bounds.depth:
        raise _too_much(f"objects and lists nested {depth} deep", bounds.depth)
    _check_keys(body)


def _structure(body: bytes, bounds: JsonBounds) -> bytes:
    """Return the brackets and commas of a JSON text that are in none of its strings."""
    without_text = b"".join(
        part.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE) for part in _slices(body)
    )
    num_strings = without_text.count(b'"') // 2
    if num_strings > bounds.strings:
        raise _too_much(f"{num_strings} strings, keys counted", bounds.strings)
    return b"".join(without_text.split(b'"')[::2])


def _slices(body: bytes) -> Iterator[bytes]:
    """Cut a text where no escape is cut: other threads run between two slices."""
    start = 0
    while start < len(body):
        end = min(start + _SLICE, len(body))
        while end < len(body) and body[end - 1 : end] == b"\\":
            end += 1
        yield body[start:end]
        start = end


def _depth(structure: bytes) -> int:
    depth = deepest = 0
    for byte in structure.replace(b",", b""):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


class _Twice(dict[str, Any]):
    """An object with a key that is there twice."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = _Twice(found)
    seen: set[str] = set()
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


def _check_keys(body: bytes) -> None:
    """Refuse what parsers do not agree about: a key that is there twice, half a character, a number past all bounds."""
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):  # no JSON, or not UTF-8: the parser that follows says so
        return
    has_surrogates = _SURROGATE_ESCAPE.search(body) is not None
    for path, found in _walk(value, ""):
        match found:
            case dict() if has_surrogates and (key := next(filter(_SURROGATE.search, found), None)) is not None:
                where = path or "the body"
                raise RequestRefused(
                    f"a key of {where} has half of a surrogate pair, which is no character",
                    param=path or None,
                    code="invalid_value",
                )
            case _Twice():
                key = shortened(found.key)
                where = f"{path}.{key}".lstrip(".")
                raise RequestRefused(f"{where} is there twice in one object", param=where, code="duplicate_key")
            case str() if has_surrogates and _SURROGATE.search(found):
                raise RequestRefused(
                    f"{path} has half of a surrogate pair, which is no character", param=path, code="invalid_value"
                )
            case float() if found in (float("inf"), float("-inf")):
                raise RequestRefused(f"{path} is a number out of range", param=path, code="invalid_value")


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every value that may be refused, with its path."""
    stack = [(path, value)]
    while stack:
        path, value = stack.pop()
        match value:
            case dict():
                yield path, value
                for key, each in value.items():
                    if isinstance(each, dict | list | str | float):
                        stack.append((f"{path}.{shortened(key, 64)}".lstrip("."), each))
            case list():
                stack.extend(
                    (f"{path}[{at}]", each)
                    for at, each in enumerate(value)
                    if isinstance(each, dict | list | str | float)
                )
            case _:
                yield path, value


def _too_much(what: str, allowed: int) -> RequestRefused:
    return RequestRefused(f"the body has {what}; allowed are {allowed}", code="body_too_complex")
