"""One answer on its way from token ids to deltas: lexer, stop strings, grammar, and the count of its tokens."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from glm_worker.messages import FinishReason as EngineFinish
from glm_worker.server.text.deltas import Delta, FinishReason
from glm_worker.server.text.lexer import Lexer, Piece, Tag
from glm_worker.server.text.parsing import State, next_state
from glm_worker.server.text.stops import StopScanner
from glm_worker.server.text.tokenizer import Tokenizer


class OutputGrammar(Protocol):
    """What turns pieces into deltas: parsing.Grammar for chats, parsing.PlainText for completions."""

    num_calls: int

    def feed(self, piece: Piece) -> list[Delta]: ...
    def finish(self, *, is_complete: bool) -> list[Delta]: ...


class OutputReader:
    """Reads the tokens of one answer. Feeding them one by one or all at once gives the same deltas, put together.

    finish_reason is set by the feed that ends the answer; later tokens are ignored.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Mapping[int, Tag],
        grammar: OutputGrammar,
        *,
        state: State,
        stop_strings: Sequence[str],
        stop_token_ids: Sequence[int],
    ) -> None:
        self._tags = tags
        self._lexer = Lexer(tokenizer, tags)
        self._stops = StopScanner(stop_strings)
        self._grammar = grammar
        self._stop_token_ids = frozenset(stop_token_ids)
        self._state = state  # of the newest token; the grammar may be behind, held back by the stop strings
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self.has_answer = False  # something else than reasoning or white space has come
        self.finish_reason: FinishReason | None = None

    def feed(self, token_ids: Sequence[int], ended: EngineFinish | None) -> list[Delta]:
        """Return what these tokens add. ended: why the engine ends the request with them, if it does."""
        deltas: list[Delta] = []
        for token_id in token_ids:
            if self.finish_reason is not None:
                return deltas
            deltas += self._token(token_id, is_stop=ended == "stop" and token_id in self._stop_token_ids)
        if ended is not None and self.finish_reason is None:
            deltas += self._pieces(self._stops.feed(self._lexer.finish()))
            deltas += self._finish("stop" if ended == "stop" or self._stops.hit else "length", is_stop=ended == "stop")
        return deltas

    def _token(self, token_id: int, *, is_stop: bool) -> list[Delta]:
        self._count(token_id)
        if is_stop:  # ends the turn and is no part of its text
            return []
        pieces = self._lexer.feed(token_id)
        self._note_answer(pieces)
        deltas = self._pieces(self._stops.feed(pieces))
        return deltas + self._finish("stop", is_stop=False) if self._stops.hit else deltas

    def _count(self, token_id: int) -> None:
        """Count one token. Those from `<think>` to `</think>`, both included, are reasoning."""
        tag = self._tags.get(token_id)
        before = self._state
        self._state = before if tag is None else next_state(before, tag)
        self.num_tokens += 1
        is_end = tag is Tag.END_THINK and before is State.REASONING
        self.num_reasoning_tokens += is_end or self._state is State.REASONING

    def _note_answer(self, pieces: list[Piece]) -> None:
        if self._state is State.TOOL_CALL:
            self.has_answer = True
        elif self._state is State.CONTENT:
            self.has_answer = self.has_answer or any(piece.tag is None and piece.text.strip() for piece in pieces)

    def _pieces(self, pieces: list[Piece]) -> list[Delta]:
        return [delta for piece in pieces for delta in self._grammar.feed(piece)]

    def _finish(self, reason: FinishReason, *, is_stop: bool) -> list[Delta]:
        is_complete = is_stop and self._stops.hit is None
        deltas = self._pieces(self._stops.finish()) + self._grammar.finish(is_complete=is_complete)
        self.finish_reason = "tool_calls" if is_complete and self._grammar.num_calls else reason
        return deltas
