"""The output format of GLM models as one streaming grammar over reasoning, content and tool calls.

    \\n<think>REASONING</think>\\nCONTENT\\n<tool_call>…</tool_call>\\n<tool_call>…</tool_call>

Any split of an answer into deltas puts together to the same result: what is not decided yet is held back, and nothing
that was given out is ever taken back. So text before a `</think>` that nothing opened is content (it was streamed as
that), a block apart from what follows. Whether an answer *begins* as reasoning is read from the end of the prompt, not
guessed from the request. A `<tool_call>` after which no tool is named is text where it stands.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

from glm_worker.server.text.argument_types import Tools
from glm_worker.server.text.deltas import Content, Delta, Reasoning
from glm_worker.server.text.lexer import THINK_TAGS, Piece, Tag
from glm_worker.server.text.marks import ANY_MARK, TAG, marked
from glm_worker.server.text.tool_calls import ToolCallReader


class State(Enum):
    """Where an answer stands."""

    REASONING = "reasoning"
    CONTENT = "content"
    TOOL_CALL = "tool_call"
    UNDECIDED = "undecided"  # after a `<tool_call>`, until its name is known


def initial_state(prompt: str) -> State:
    """Return how an answer to this rendered prompt begins: templates from GLM-4.7 on end with an open `<think>`."""
    return State.REASONING if prompt.rstrip().endswith(Tag.THINK.value) else State.CONTENT


def state_after(token_ids: Sequence[int], tags: Mapping[int, Tag]) -> State:
    """Return how a text goes on that ends with these tokens: as reasoning, where its last think tag opens a thought."""
    last = next((tags[token_id] for token_id in reversed(token_ids) if tags.get(token_id) in THINK_TAGS), None)
    return State.REASONING if last is Tag.THINK else State.CONTENT


class _Prose:
    """Text of one kind over all its blocks, without the newlines that the format puts around tags.

    White space at the end of a block is held back until more text follows.
    """

    def __init__(self, *, goes_on: bool = False, is_exact: bool = False) -> None:
        """goes_on: its first block has begun before. is_exact: no newline at the start of a block is the format's."""
        self._held: list[str] = []  # white space; joined when text follows, so that no length of it is slow
        self._has_text = goes_on
        self._is_exact = is_exact
        self._at_start = not goes_on

    @property
    def drops_newlines(self) -> bool:
        """Whether newlines that come now are the format's: nothing of the block has come."""
        return self._at_start and not self._is_exact

    def open(self) -> None:
        """Begin a block. Blocks of the same kind are one line apart."""
        self._held = ["\n"] if self._has_text else []
        self._at_start = True

    def feed(self, text: str) -> str:
        """Return what can be given out now."""
        if self.drops_newlines:
            text = text.lstrip("\n")
        if not text:
            return ""
        self._at_start = False
        visible = text.rstrip()
        if not visible:
            self._held.append(text)
            return ""
        rest = text[len(visible) :]
        if self._held:
            visible = "".join([*self._held, visible])
        self._held = [rest] if rest else []
        self._has_text = True
        return visible

    def finish(self) -> str:
        """Return the white space that ends an answer: it is the model's, no tag follows it."""
        return "" if self._at_start else "".join(self._held)


class Grammar:
    """Reads one answer. With no tools on offer the tags of tool calls must not reach it (they are text then).

    any_name: whether a call of a tool that is not on offer is passed on, if its name can be one; else it is text.
    goes_on: the prompt ends inside of the text that the answer begins with. is_exact: content is told as it was
    generated, for a format has said what it is from its first character on.
    """

    def __init__(
        self, state: State, tools: Tools, *, any_name: bool = False, goes_on: bool = False, is_exact: bool = False
    ) -> None:
        self._prose_state = state  # of the text outside of calls
        self._tools = tools
        self._any_name = any_name
        self._reasoning = _Prose(goes_on=goes_on and state is State.REASONING)
        self._content = _Prose(goes_on=goes_on and state is State.CONTENT, is_exact=is_exact)
        self._call: ToolCallReader | None = None
        self._num_openings_as_text = 0
        self.num_calls = 0
        self.has_cut_call = False
        self.turned_out: State | None = None  # what the newest undecided text was, once that is known

    @property
    def state(self) -> State:
        """Where the newest text is."""
        if self._call is None:
            return self._prose_state
        return State.TOOL_CALL if self._call.has_begun else State.UNDECIDED

    @property
    def drops_newlines(self) -> bool:
        """Whether newlines that come now are the format's."""
        return self._call is None and self._prose_of(self._prose_state).drops_newlines

    def feed(self, piece: Piece) -> list[Delta]:
        """Return what a piece adds to the answer."""
        if piece.tag is None and self._call is None:
            return self._prose(piece.text)
        return self._read(marked(piece))

    def finish(self, *, is_complete: bool) -> list[Delta]:
        """End the answer. is_complete: the model ended it, so an open tool call is whole unless inside an argument."""
        if self._call is not None:
            was_undecided = not self._call.has_begun
            deltas = self._call.finish(is_complete=is_complete)
            if was_undecided and self._call.has_begun:
                self.turned_out = State.TOOL_CALL
            if not self._call.is_rejected:
                if not self._call.has_begun and self._prose_state is State.REASONING:
                    self.turned_out = State.REASONING  # no call came of it, and nothing ended the thought
                self._count_call(self._call)
                return deltas
            rest = self._end_call(deltas)
            return deltas + self._read(rest) + self._finish_prose()
        return self._finish_prose()

    def _finish_prose(self) -> list[Delta]:
        if self._prose_state is State.REASONING:
            return [Reasoning(text)] if (text := self._reasoning.finish()) else []
        text = "" if self.num_calls else self._content.finish()
        return [Content(text)] if text else []

    def _read(self, text: str) -> list[Delta]:
        """Read marked text."""
        deltas: list[Delta] = []
        while text:
            if self._call is not None:
                was_undecided = not self._call.has_begun
                deltas += self._call.feed(text)
                if was_undecided and self._call.has_begun:
                    self.turned_out = State.TOOL_CALL
                text = self._end_call(deltas) if self._call.is_over else ""
                continue
            tag = ANY_MARK.search(text)
            if tag is None:
                return deltas + self._prose(text)
            deltas += self._prose(text[: tag.start()]) + self._tag(TAG[tag[0]])
            text = text[tag.end() :]
        return deltas

    def _prose(self, text: str) -> list[Delta]:
        if self._prose_state is State.REASONING:
            return [Reasoning(visible)] if (visible := self._reasoning.feed(text)) else []
        return [Content(visible)] if (visible := self._content.feed(text)) else []

    def _tag(self, tag: Tag) -> list[Delta]:
        """Read a tag outside of calls."""
        match tag:
            case Tag.TOOL_CALL:
                self._call = ToolCallReader(self.num_calls, self._tools, any_name=self._any_name)
            case Tag.END_TOOL_CALL if self._num_openings_as_text:
                self._num_openings_as_text -= 1
                return self._prose(tag.value)
            case Tag.THINK if self._prose_state is State.CONTENT:
                self._open(State.REASONING)
            case Tag.END_THINK:
                self._open(State.CONTENT)
            case _:  # it begins what has begun, or ends what has not
                pass
        return []

    def _open(self, state: State) -> None:
        self._prose_state = state
        self._prose_of(state).open()

    def _prose_of(self, state: State) -> _Prose:
        return self._reasoning if state is State.REASONING else self._content

    def _end_call(self, deltas: list[Delta]) -> str:
        """Leave a call that is over, and return what is to be read after it; text of ours is added to the deltas."""
        assert self._call is not None
        call, self._call = self._call, None
        if call.is_rejected:
            self.turned_out = self._prose_state
            self._num_openings_as_text += 1
            deltas += self._prose(Tag.TOOL_CALL.value)
        elif call.has_begun:
            self._count_call(call)
            self._open(State.CONTENT)
        else:
            self.turned_out = self._prose_state
            self._open(self._prose_state)
        return call.rest

    def _count_call(self, call: ToolCallReader) -> None:
        self.num_calls += call.has_begun
        self.has_cut_call = self.has_cut_call or (call.has_begun and call.is_cut)


class PlainText:
    """The grammar of /v1/completions: all text is content, as it is.

    Where reasoning is hidden the reader knows the think tags. Then what is between them, or not ended, is reasoning,
    and the tags are nothing. Elsewhere no tag comes here.
    """

    num_calls = 0
    has_cut_call = False
    turned_out: State | None = None
    drops_newlines = False

    def __init__(self, state: State = State.CONTENT) -> None:
        self.state = state

    def feed(self, piece: Piece) -> list[Delta]:
        if piece.tag is not None:
            self.state = State.REASONING if piece.tag is Tag.THINK else State.CONTENT
            return []
        return [Reasoning(piece.text) if self.state is State.REASONING else Content(piece.text)]

    def finish(self, *, is_complete: bool) -> list[Delta]:  # noqa: ARG002 - the shape of Grammar.finish
        return []
