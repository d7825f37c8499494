"""JSON of objects with long lists, for threads beside the event loop: no step of it holds Python's lock for long."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_ITEMS = 8192  # of a list at once: a millisecond
_NESTED_ITEMS = 1024  # as well, where each may be a kilobyte of its own
_PART_BYTES = 256 * 2**10  # that are written at once


def json_of(value: Mapping[str, Any]) -> bytes:
    """Return the JSON of an object. Its long lists are written in parts, between which other threads run."""
    return _encode({key: _in_parts(each) if isinstance(each, list) else each for key, each in value.items()})


def _in_parts(items: Sequence[Any]) -> msgspec.Raw:
    parts = [_encode(items[at : at + _ITEMS])[1:-1] for at in range(0, len(items), _ITEMS)]
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def parts_of(value: object) -> list[bytes]:
    """Return the JSON of a value in parts of about 256 KiB, each byte of which was copied twice at most.

    Encoded in one piece, what lies deep is copied for each object around it, and nobody else runs meanwhile.
    """
    parts, gathered, num_bytes = list[bytes](), list[bytes](), 0
    for part in _pieces(value):
        gathered.append(part)
        num_bytes += len(part)
        if num_bytes >= _PART_BYTES:
            parts.append(b"".join(gathered))
            gathered, num_bytes = [], 0
    return [*parts, b"".join(gathered)] if gathered else parts


def _pieces(value: object) -> Iterator[bytes]:
    match value:
        case dict():
            sign = b"{"
            for key, each in value.items():
                yield b"%b%b:" % (sign, _encode(key))
                yield from _pieces(each)
                sign = b","
            yield b"}" if value else b"{}"
        case list() if len(value) > _NESTED_ITEMS:
            sign = b"["
            for at in range(0, len(value), _NESTED_ITEMS):
                yield sign
                yield _encode(value[at : at + _NESTED_ITEMS])[1:-1]
                sign = b","
            yield b"]"
        case list() if any(isinstance(each, dict | list) for each in value):
            sign = b"["
            for each in value:
                yield sign
                yield from _pieces(each)
                sign = b","
            yield b"]"
        case _:
            yield _encode(value)
