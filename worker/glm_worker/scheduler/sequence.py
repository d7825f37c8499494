"""One request on its way through the engine: its tokens, and how many of them are in the KV cache."""

import math
from dataclasses import dataclass, field

from glm_worker.messages import FinishReason
from glm_worker.request import EngineRequest

Rank = tuple[int, float, int]
"""Who comes first: priority, then deadline in milliseconds, then arrival; the least is the most important."""


@dataclass(slots=True, eq=False)
class SequenceState:
    """Mutable, and changed by the scheduler only. Two are the same only if they are the same object."""

    request: EngineRequest
    arrival: int  # number in order of arrival
    arrived_step: int = 0
    rank: Rank = field(init=False)  # its place among all requests
    token_ids: list[int] = field(init=False)  # prompt, then every token of the answer so far
    stop_token_ids: frozenset[int] = field(init=False)
    num_computed: int = 0  # the first num_computed tokens are in the KV cache
    num_prefill: int = 0  # tokens that were known when it was admitted last: the prompt, after a preemption more
    was_scheduled: bool = False  # its first token has been computed at least once
    finish_reason: FinishReason | None = None  # set from the beginning where the answer so far is a whole one

    def __post_init__(self) -> None:
        self.token_ids = [*self.request.prompt_token_ids, *self.request.answer_token_ids]
        self.stop_token_ids = frozenset(self.request.stop_token_ids)
        self.finish_reason = self._ending()
        deadline_ms = self.request.deadline_ms
        self.rank = self.request.priority, math.inf if deadline_ms is None else deadline_ms, self.arrival

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - len(self.request.prompt_token_ids)

    @property
    def num_uncomputed(self) -> int:
        """Tokens to compute before the next one can be sampled: 1 in decode, more in prefill."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_prefill_left(self) -> int:
        """Tokens of the prefill that are not computed yet; of a waiting sequence this is not known."""
        return max(0, self.num_prefill - self.num_computed)

    def lose_patience(self) -> None:
        """Go before every deadline of the same priority. It stands in no list by rank meanwhile."""
        self.rank = self.request.priority, -math.inf, self.arrival

    def append(self, token_id: int) -> FinishReason | None:
        """Add a sampled token. Finish on a stop token or on the last one that was asked for; return why, if so."""
        self.token_ids.append(token_id)
        self.finish_reason = self._ending()
        return self.finish_reason

    def _ending(self) -> FinishReason | None:
        """Return why nothing comes after the answer so far, by its last token and its length."""
        if self.num_generated and self.token_ids[-1] in self.stop_token_ids:
            return "stop"
        return "length" if self.num_generated >= self.request.max_tokens else None
