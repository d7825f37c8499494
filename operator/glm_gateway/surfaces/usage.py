"""What a plain reply says that it used, read while it passes: of a worker from before, or from outside. Pure.

Each API tells it in its own words, whole or in the last events of a stream. What is not told, not understood, or in a
reply of another form is not known.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

MAX_WHOLE_BYTES = 4 * 2**20
"""Of a whole reply that is kept to be read; a longer one is passed on all the same."""

MAX_EVENT_BYTES = 2**16
"""Of a line of a stream that is read for its usage: such lines are short."""

_SIGN = b'"usage"'


@dataclass(frozen=True, slots=True)
class Told:
    """Tokens. prompt: all of it, cached: the part of it that was in a cache. answer: all, reasoning the part of it."""

    prompt: int
    cached: int
    answer: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A response that a group keeps, as it tells it. told: what it used, where it says so."""

    id: str
    status: str
    told: Told | None

    @property
    def is_over(self) -> bool:
        return self.status not in ("queued", "in_progress")


class UsageReader:
    """Fed with the bytes of one reply. content_type: of its head."""

    def __init__(self, content_type: bytes | None) -> None:
        kind = (content_type or b"").partition(b";")[0].strip().lower()
        self._is_stream = kind == b"text/event-stream"
        self._is_read = self._is_stream or kind == b"application/json"
        self._rest = bytearray()
        self._fields: dict[str, Any] = {}
        self._response: tuple[str, str] | None = None  # id and status, as told last

    def feed(self, data: bytes) -> None:
        """Take more of the reply."""
        if not self._is_read:
            return
        self._rest += data
        if self._is_stream:
            *lines, rest = bytes(self._rest).split(b"\n")
            for line in lines:
                self._line(line)
            self._rest = bytearray(rest[-MAX_EVENT_BYTES - 1 :])
        elif len(self._rest) > MAX_WHOLE_BYTES:
            self._is_read = False
            self._rest.clear()

    @property
    def told(self) -> Told | None:
        """What the reply has said by now; None: nothing that is understood."""
        if self._is_read and not self._is_stream and not self._fields:
            self._take(bytes(self._rest))
        return _told_in(self._fields)

    @property
    def stored(self) -> Stored | None:
        """How a response stands that the reply is about; None: it is about none."""
        told = self.told
        return None if self._response is None else Stored(*self._response, told)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:") and _SIGN in line and len(line) <= MAX_EVENT_BYTES:
            self._take(line[5:])

    def _take(self, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for holder in (value, _object(value, "message"), _object(value, "response")):
            if isinstance(holder, dict) and holder.get("object") == "response":
                id_, status = holder.get("id"), holder.get("status")
                if isinstance(id_, str) and isinstance(status, str):
                    self._response = id_, status
            self._fields |= {name: each for name, each in _object(holder, "usage").items() if each is not None}


def _told_in(fields: dict[str, Any]) -> Told | None:
    if "prompt_tokens" in fields:
        prompt, answer = fields["prompt_tokens"], fields.get("completion_tokens", 0)
        cached = _object(fields, "prompt_tokens_details").get("cached_tokens")
        reasoning = _object(fields, "completion_tokens_details").get("reasoning_tokens")
        return _checked(prompt, cached, answer, reasoning)
    if "input_tokens" not in fields:
        return None
    prompt, answer = fields["input_tokens"], fields.get("output_tokens", 0)
    if "input_tokens_details" in fields or "output_tokens_details" in fields:
        cached = _object(fields, "input_tokens_details").get("cached_tokens")
        return _checked(prompt, cached, answer, _object(fields, "output_tokens_details").get("reasoning_tokens"))
    # Anthropic's: what was cached is no part of the input
    cached, written = fields.get("cache_read_input_tokens", 0), fields.get("cache_creation_input_tokens", 0)
    if not all(_is_count(each) for each in (prompt, cached, written)):
        return None
    return _checked(prompt + cached + written, cached, answer, 0)


def _checked(prompt: object, cached: object, answer: object, reasoning: object) -> Told | None:
    numbers = [0 if each is None else each for each in (prompt, cached, answer, reasoning)]
    if not all(_is_count(each) for each in numbers):
        return None
    found = Told(*numbers)  # type: ignore[arg-type]
    return found if found.cached <= found.prompt and found.reasoning <= found.answer else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9


def _object(value: object, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
