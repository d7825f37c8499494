"""Which tokens of an answer are its content, and when their logprobs may be told: before the text that they add."""

from collections import deque
from typing import NamedTuple

from glm_worker.server.text.deltas import TokenLogprob
from glm_worker.server.text.parsing import State


class _Due(NamedTuple):
    """A token, and how many characters come before its text."""

    entry: TokenLogprob
    begins_at: int


class ContentLogprobs:
    """The logprobs of one answer, on their way.

    A token may turn out to be content later: a part of a character, white space that a tag may follow, a call that may
    be none. It is open until then, and dropped where it was none.
    """

    def __init__(self, *, may_be_cut: bool) -> None:
        """may_be_cut: a stop string may still cut what is content."""
        self._may_be_cut = may_be_cut
        self._open: list[_Due] = []
        self._due: deque[_Due] = deque()  # those that begin first come first

    def note(self, entry: TokenLogprob, begins_at: int, *, has_text: bool = True) -> None:
        """Note a token that may be content. has_text: what has none waits for nothing."""
        due = _Due(entry, begins_at)
        if has_text or self._open:
            self._open.append(due)
        else:
            self._due.append(due)

    def settle(self, state: State, *, is_content: bool, is_new: bool = False) -> None:
        """Say what has become of the tokens that are open.

        is_content: content has come out of them. state: of the newest text. is_new: a block begins, and what was held
        back before it is no text.
        """
        if is_content:
            self._due += self._open
        if is_content or is_new or state in (State.REASONING, State.TOOL_CALL):
            self._open = []

    def told(self, num_released: int, *, is_over: bool) -> list[TokenLogprob]:
        """Return what can be told now: of tokens with text that no stop string cuts.

        num_released: the characters of the answer that were let through. is_over: and nothing was cut.
        """
        told: list[TokenLogprob] = []
        while self._due and (is_over or not self._may_be_cut or self._due[0].begins_at < num_released):
            told.append(self._due.popleft().entry)
        return told
