"""The bounds of a JSON body, checked before any object is made of it.

A body of some megabytes can be a million empty lists: small to send, slow to read (the parser holds up every stream of
the server meanwhile) and large in memory. So brackets, commas, strings and digits are counted first, by operations on
bytes that take a fraction of a millisecond for most bodies and some milliseconds a megabyte at the worst, and what is
past a bound is refused unread.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glm_edge.errors.failure import Failure


@dataclass(frozen=True)
class JsonBounds:
    """containers: objects and lists. values: in lists and objects, of which token ids are the most that is honest.

    digits: of one number, all before or all behind its point. What is within all of these is read at once, and holds up
    the streams beside it for about 20 ms. The longest loops of agents have a quarter of it.
    """

    containers: int = 15_000
    strings: int = 40_000  # keys and values
    values: int = 200_000
    depth: int = 64
    digits: int = 400  # no double has more before its point than 309


class Unfit(Exception):
    """A body that is not read. param: the path of what is wrong in it."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(400, message, "invalid_request_error", param, code)


_SLICE = 2**20
_PART = 2**18
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{}[],'))
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
MOST_TOLD = 64  # characters of a key
FEW = 64  # signs that are looked for one by one: about what that costs is what counting takes of 16 KB
DEFAULT = JsonBounds()


def check_json(body: bytes, bounds: JsonBounds = DEFAULT) -> None:
    """Raise Unfit for a body past a bound, with a key that is there twice, or with half a surrogate pair.

    What is no JSON at all passes: the parser that reads it for good says what is wrong with it.
    """
    check_size(body, bounds)
    _check_keys(body)


def check_size(body: bytes, bounds: JsonBounds = DEFAULT) -> None:
    """Raise Unfit for a body past a bound. What is no JSON passes here, too."""
    if not _is_plainly_small(body, bounds):
        _check_structure(body, bounds)
    if _may_have_digits(body, bounds.digits + 1) and _has_digits(_STRING.sub(b"", body), bounds.digits + 1):
        raise _too_much(f"a number of more than {bounds.digits} digits", bounds.digits)


def _may_have_digits(body: bytes, num: int) -> bool:
    """Tell whether so many digits may follow each other: then every num // 4th byte is one, four times."""
    return num < 4 or (_has_digits(body[:: num // 4], 4) and _has_digits(body, num))


def _has_digits(text: bytes, num: int) -> bool:
    """Tell whether so many digits follow each other. Other threads run between two parts of a long text."""
    wanted = b"0" * num
    starts = range(0, len(text), _PART)
    return any(wanted in text[start : start + _PART + num - 1].translate(_DIGITS) for start in starts)


def _is_plainly_small(body: bytes, bounds: JsonBounds) -> bool:
    """Tell whether there are so few signs of structure, strings and all, that no bound can be passed."""
    num_opened = _count(body, b"{", len(body)) + _count(body, b"[", len(body))
    return (
        num_opened <= min(bounds.depth, bounds.containers)
        and _is_at_most(body, b",", bounds.values - num_opened)
        and _is_at_most(body, b'"', 2 * bounds.strings + 1)
    )


def _count(body: bytes, sign: bytes, end: int) -> int:
    """Return how often a sign is there before the end. Of few the library finds each ten times as fast as it counts."""
    at = 0
    for num in range(FEW):
        at = body.find(sign, at, end) + 1
        if at == 0:
            return num
    return FEW + body.count(sign, at, end)


def _is_at_most(body: bytes, sign: bytes, most: int) -> bool:
    """Tell whether a sign is there no more often: surely where enough of the first bytes are something else."""
    needed = max(0, len(body) - most)
    looked_at = min(len(body), needed + needed // 4)
    num = _count(body, sign, looked_at)
    return looked_at - num >= needed or num + body.count(sign, looked_at) <= most


def _check_structure(body: bytes, bounds: JsonBounds) -> None:
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
                raise Unfit(
                    f"a key of {where} has half of a surrogate pair, which is no character",
                    "invalid_value",
                    path or None,
                )
            case _Twice():
                key = _shortened(found.key, 100)
                where = f"{path}.{key}".lstrip(".")
                raise Unfit(f"{where} is there twice in one object", "duplicate_key", where)
            case str() if has_surrogates and _SURROGATE.search(found):
                raise Unfit(f"{path} has half of a surrogate pair, which is no character", "invalid_value", path)
            case float() if found in (float("inf"), float("-inf")):
                raise Unfit(f"{path} is a number out of range", "invalid_value", path)


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
                        stack.append((f"{path}.{_shortened(key, MOST_TOLD)}".lstrip("."), each))
            case list():
                stack.extend(
                    (f"{path}[{at}]", each)
                    for at, each in enumerate(value)
                    if isinstance(each, dict | list | str | float)
                )
            case _:
                yield path, value


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _too_much(what: str, allowed: int) -> Unfit:
    return Unfit(f"the body has {what}; allowed are {allowed}", "body_too_complex")
