"""JSON of objects with long lists, for threads beside the event loop: no step of it holds Python's lock for long."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_ITEMS = 8192  # of a list at once: a millisecond


def json_of(value: Mapping[str, Any]) -> bytes:
    """Return the JSON of an object. Its long lists are written in parts, between which other threads run."""
    return _encode({key: _in_parts(each) if isinstance(each, list) else each for key, each in value.items()})


def _in_parts(items: Sequence[Any]) -> msgspec.Raw:
    parts = [_encode(items[at : at + _ITEMS])[1:-1] for at in range(0, len(items), _ITEMS)]
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")
