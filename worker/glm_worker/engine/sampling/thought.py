"""The budget of a thought: which token must come next, by the tokens generated so far and nothing else. Pure."""

from collections.abc import Iterable

from glm_worker.request import Thought


class ThoughtBudget:
    """Follows an answer token by token.

    Tokens inside of a thought count, its tags do not, and all thoughts of the answer share max_tokens. When an open
    thought has used them up, the tokens of forced_ids are due one after the other, and the thought is closed. A thought
    that is opened after that is closed at once, in the same way.
    """

    def __init__(self, thought: Thought) -> None:
        self._thought = thought
        self._is_open = thought.begins_open
        self._num_used = 0
        self._num_forced = 0  # of forced_ids, taken so far in this closing

    @property
    def forced_id(self) -> int | None:
        """The token that must come next; None: it is sampled."""
        is_due = self._is_open and (self._num_forced or self._num_used >= self._thought.max_tokens)
        return self._thought.forced_ids[self._num_forced] if is_due else None

    def take(self, token_id: int) -> None:
        """Go on by a token that was generated.

        Where another token stands in place of a forced one, the answer began under a larger budget: it counts as what
        it is, and the thought is closed as soon as tokens are new.
        """
        if token_id == self.forced_id:
            self._num_forced += 1
            if self._num_forced == len(self._thought.forced_ids):
                self._is_open, self._num_forced = False, 0
            return
        self._num_forced = 0
        if token_id == self._thought.open_id:
            self._is_open = True
        elif token_id == self._thought.close_id:
            self._is_open = False
        elif self._is_open:
            self._num_used += 1


def forced_id(thought: Thought, generated: Iterable[int]) -> int | None:
    """Return the token that must come after those generated; None: it is sampled."""
    budget = ThoughtBudget(thought)
    for token_id in generated:
        budget.take(token_id)
    return budget.forced_id
