"""What one sequence asks of its next token besides SamplingParams' draw, kept up with the tokens it has.

The scheduler's SequenceState owns the tokens. What is kept here is made of them and nothing else, so it can be thrown
away and made again at any time: after a preemption it goes on, in a new generation it begins anew.
"""

from glm_worker.engine.sampling.bans import Bans
from glm_worker.engine.sampling.matcher import AnswerMatcher
from glm_worker.engine.sampling.penalties import counts_for, has_penalty
from glm_worker.engine.sampling.thought import ThoughtBudget
from glm_worker.request import EngineRequest
from glm_worker.scheduler.sequence import SequenceState


def asks_nothing(request: EngineRequest) -> bool:
    """Whether the draw is all there is to do for this request."""
    return (
        not has_penalty(request.sampling)
        and not request.sampling.logit_bias
        and not request.min_tokens
        and not request.bad_words
        and request.num_logprobs is None
        and request.thought is None
        and request.grammar is None
    )


class Row:
    """The parts are None where the request does not ask for them."""

    def __init__(self, sequence: SequenceState, matcher: AnswerMatcher | None, vocab_size: int) -> None:
        """matcher: has taken the tokens with which the request came."""
        request = sequence.request
        self.sequence = sequence
        self._num_seen = len(request.prompt_token_ids)
        self.counts = counts_for(request.sampling, request.prompt_token_ids) if has_penalty(request.sampling) else None
        self.bans = Bans(request, vocab_size) if request.min_tokens or request.bad_words else None
        self.thought = ThoughtBudget(request.thought) if request.thought is not None else None
        self.matcher: AnswerMatcher | None = None
        for token_id in request.answer_token_ids:
            self.take(token_id)
        self.matcher = matcher
        self.changes_logits = bool(
            self.counts is not None or request.sampling.logit_bias or self.bans is not None or matcher is not None
        )

    def keep_up(self) -> None:
        """Take the tokens that were generated since. Raises GrammarFailed if the grammar does not allow one."""
        token_ids = self.sequence.token_ids
        for place in range(self._num_seen, len(token_ids)):
            self.take(token_ids[place])

    def take(self, token_id: int) -> None:
        """Go on by one token, before or after the sequence has it."""
        self._num_seen += 1
        if self.counts is not None:
            self.counts.add(token_id)
        if self.thought is not None:
            self.thought.take(token_id)
        if self.matcher is not None:
            self.matcher.take(token_id)

    def banned(self) -> list[int]:
        """Return the ids that may not come next, besides those that a mask leaves out."""
        sequence, matcher = self.sequence, self.matcher
        banned = [] if self.bans is None else self.bans.banned(sequence.token_ids, sequence.num_generated)
        if matcher is not None and not matcher.has_begun:
            banned += matcher.end_ids  # or a request for a whole answer would end without one
        return banned
