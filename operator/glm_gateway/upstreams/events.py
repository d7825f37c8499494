"""A stream from outside, without the event of its usage where only the gateway asked for that. Pure."""

import re

import msgspec

MAX_EVENT_BYTES = 2**20

_END = re.compile(rb"\r?\n\r?\n")


class TooLong(Exception):
    """An event that does not end."""


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Chunk).decode


class Events:
    """Fed with bytes in any pieces; gives whole events. tells_usage: that of usage alone is given as well."""

    def __init__(self, *, tells_usage: bool = False) -> None:
        self._tells_usage = tells_usage
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the events that are whole now, but for those of usage alone. Raises TooLong."""
        self._rest += data
        told: list[bytes] = []
        begin = 0
        for match in _END.finditer(self._rest):
            event = self._rest[begin : match.end()]
            begin = match.end()
            if self._tells_usage or not _is_usage_alone(event):
                told.append(event)
        self._rest = self._rest[begin:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise TooLong(f"an event has more than {MAX_EVENT_BYTES} bytes")
        return b"".join(told)

    def end(self) -> bytes:
        """Return what is left at the end of a stream."""
        rest, self._rest = self._rest, b""
        return rest


def _is_usage_alone(event: bytes) -> bool:
    if not event.startswith(b"data:") or b'"usage"' not in event:
        return False
    try:
        chunk = _decode(event[5:].strip())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return chunk.choices == [] and bytes(chunk.usage) not in (b"", b"null")
