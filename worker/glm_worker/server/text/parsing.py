"""The output format of GLM models as one streaming grammar over reasoning, content and tool calls.

    \\n<think>REASONING</think>\\nCONTENT\\n<tool_call>…</tool_call>\\n<tool_call>…</tool_call>

Any split of an answer into deltas puts together to the same result: what is not decided yet is held back, and nothing
that was given out is ever taken back. So text before a `</think>` that nothing opened is content (it was streamed as
that), and whether an answer *begins* as reasoning is read from the end of the prompt, not guessed from the request.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from glm_worker.server.text.deltas import Content, Delta, Reasoning
from glm_worker.server.text.lexer import Piece, Tag
from glm_worker.server.text.tool_calls import ToolCallReader

Tools = Mapping[str, Mapping[str, Any] | None]
"""The JSON schema of the parameters of each tool on offer, by the tool's name."""


class State(Enum):
    REASONING = "reasoning"
    CONTENT = "content"
    TOOL_CALL = "tool_call"


def initial_state(prompt: str) -> State:
    """Return how an answer to this rendered prompt begins: templates from GLM-4.7 on end with an open `<think>`."""
    return State.REASONING if prompt.rstrip().endswith(Tag.THINK.value) else State.CONTENT


def next_state(state: State, tag: Tag) -> State:
    """Return where the answer goes on after a tag. Inside a tool call, think tags are text of its arguments."""
    match state, tag:
        case State.TOOL_CALL, Tag.END_TOOL_CALL:
            return State.CONTENT
        case State.TOOL_CALL, _:
            return State.TOOL_CALL
        case _, Tag.TOOL_CALL:  # also ends reasoning that was not closed
            return State.TOOL_CALL
        case _, Tag.THINK:
            return State.REASONING
        case _, Tag.END_THINK:
            return State.CONTENT
        case _:
            return state


class _Prose:
    """Text of one kind over all its blocks, without the newlines that the format puts around tags.

    White space at the end of a block is held back until more text follows.
    """

    def __init__(self) -> None:
        self._held = ""
        self._has_text = False
        self._at_start = True

    def open(self) -> None:
        """Begin a block. Blocks of the same kind are one line apart."""
        self._held = "\n" if self._has_text else ""
        self._at_start = True

    def feed(self, text: str) -> str:
        """Return what can be given out now."""
        if self._at_start:
            text = text.lstrip("\n")
            if not text:
                return ""
            self._at_start = False
        text = self._held + text
        visible = text.rstrip()
        self._held = text[len(visible) :]
        self._has_text = self._has_text or bool(visible)
        return visible

    def finish(self) -> str:
        """Return the white space that ends an answer: it is the model's, no tag follows it."""
        return self._held if self._has_text and not self._at_start else ""


class Grammar:
    """Reads one answer. With no tools on offer the tags of tool calls must not reach it (they are text then)."""

    def __init__(self, state: State, tools: Tools) -> None:
        self._state = state
        self._tools = tools
        self._reasoning = _Prose()
        self._content = _Prose()
        self._call: ToolCallReader | None = None
        self.num_calls = 0

    def feed(self, piece: Piece) -> list[Delta]:
        """Return what a piece adds to the answer."""
        if piece.tag is not None:
            return self._tag(piece, piece.tag)
        return self._text(piece.text)

    def finish(self, *, is_complete: bool) -> list[Delta]:
        """End the answer. is_complete: the model ended it, so an open tool call is whole unless inside a value."""
        if self._state is State.TOOL_CALL:
            assert self._call is not None
            can_close = is_complete and not self._call.is_inside_value
            return self._end_call(self._call.close() if can_close else self._call.cut())
        if self._state is State.REASONING:
            return [Reasoning(text)] if (text := self._reasoning.finish()) else []
        text = "" if self.num_calls else self._content.finish()
        return [Content(text)] if text else []

    def _text(self, text: str) -> list[Delta]:
        if self._state is State.TOOL_CALL:
            assert self._call is not None
            return self._call.feed(text)
        if self._state is State.REASONING:
            return [Reasoning(visible)] if (visible := self._reasoning.feed(text)) else []
        return [Content(visible)] if (visible := self._content.feed(text)) else []

    def _tag(self, piece: Piece, tag: Tag) -> list[Delta]:
        before, self._state = self._state, next_state(self._state, tag)
        deltas: list[Delta] = []
        if before is State.TOOL_CALL:
            assert self._call is not None
            if tag in (Tag.THINK, Tag.END_THINK) or (tag is Tag.TOOL_CALL and self._call.is_inside_value):
                return self._call.feed(piece.text)
            deltas = self._end_call(self._call.close())
        if self._state is State.TOOL_CALL:
            self._call = ToolCallReader(self.num_calls, self._tools)
        elif self._state is not before:
            (self._reasoning if self._state is State.REASONING else self._content).open()
        return deltas

    def _end_call(self, deltas: list[Delta]) -> list[Delta]:
        assert self._call is not None
        self.num_calls += self._call.has_begun
        return deltas


class PlainText:
    """The grammar of /v1/completions: all text is content, as it is."""

    num_calls = 0

    def feed(self, piece: Piece) -> list[Delta]:
        return [Content(piece.text)]

    def finish(self, *, is_complete: bool) -> list[Delta]:  # noqa: ARG002 - the shape of Grammar.finish
        return []
