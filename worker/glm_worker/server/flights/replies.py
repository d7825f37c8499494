"""What a surface makes of answers: the one seam between flights and the words of a vendor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from glm_edge.errors.failure import Failure
from glm_worker.server.text.deltas import Delta, FinishReason

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one answer ended, and what it took. Exact for what was generated, told or not."""

    reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    num_reasoning_tokens: int
    num_cached_tokens: int = 0  # of the prompt, that were computed for another request before
    stop: str | int | None = None  # what the client asked to stop at, and was met: a string or a token id


class Generated(NamedTuple):
    """Tokens of one answer so far."""

    num_tokens: int
    num_reasoning_tokens: int
    num_cached_tokens: int = 0  # of its prompt


class Answered(NamedTuple):
    """One whole answer."""

    deltas: list[Delta]
    ending: Ending


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event. data: JSON, also as it is written, or the text of a mark; name: where it has one."""

    data: Json | msgspec.Raw | str
    name: str | None = None

    @property
    def line(self) -> bytes:
        data = self.data.encode() if isinstance(self.data, str) else _encode(self.data)
        if self.name is None:
            return b"data: %b\n\n" % data
        return b"event: %b\ndata: %b\n\n" % (self.name.encode(), data)


DONE = Event("[DONE]")


class Blank:
    """JSON that differs in one text only. Most events of a stream are that: the same but for a word."""

    __slots__ = ("_after", "_before")
    _MARK = "\x00here\x00"  # in JSON an escape, which no text of ours has

    def __init__(self, make: Callable[[str], Json]) -> None:
        """make: returns the JSON with a text in it, once."""
        self._before, self._after = _encode(make(self._MARK)).split(_encode(self._MARK))

    def filled(self, text: str) -> msgspec.Raw:
        return msgspec.Raw(b"%b%b%b" % (self._before, _encode(text), self._after))


class Replies(Protocol):
    """One order's answers in the words of its surface. Called in this order; may keep what it has told.

    body: for whole answers, nothing else is called then. opening: right after the headers of a stream. chunks: more of
    answer `index`. ending: that answer is over. closing: all are. failure: it cannot go on; the last thing told.

    May have a `keep_alive: Event`, which is sent while there is nothing to tell, where the others send a comment. And
    `state: bytes` with `restore(state)`, where what is told depends on more than the tokens: another group that goes on
    with the answers tells the tokens so far to nobody, and restores that. And `forget()`, where it keeps back what it
    was given until more is known: that is nobody's then either. And `spelled(token)`, where it tells logprobs: what is
    to be told of one is made when the token comes, and not for all tokens at the end.
    """

    def body(self, answers: Sequence[Answered]) -> Json: ...
    def opening(self) -> list[Event]: ...
    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]: ...
    def ending(self, index: int, ending: Ending) -> list[Event]: ...
    def closing(self, endings: Sequence[Ending]) -> list[Event]: ...
    def failure(self, failure: Failure) -> list[Event]: ...
