"""One request on its way through the engine: its tokens, and how many of them are in the KV cache."""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from glm_worker.messages import FinishReason
from glm_worker.request import EngineRequest, TokenIds
from glm_worker.scheduler.prefix import KEY_BYTES, next_key

Rank = tuple[int, float, int]
"""Who comes first: priority, then deadline in milliseconds, then arrival; the least is the most important."""


@dataclass(slots=True, eq=False)
class SequenceState:
    """Mutable, and changed by the scheduler only. Two are the same only if they are the same object."""

    request: EngineRequest
    arrival: int  # number in order of arrival
    arrived_step: int = 0
    rank: Rank = field(init=False)  # its place among all requests
    request_id: str = field(init=False)
    token_ids: "array[int]" = field(init=False)  # prompt, then every token of the answer so far
    num_prompt: int = field(init=False)
    stop_token_ids: frozenset[int] = field(init=False)
    num_computed: int = (
        0  # the first num_computed tokens are in the KV cache, or a step that was planned puts them there
    )
    num_unknown: int = 0  # tokens that planned steps sample, behind token_ids
    num_prefill: int = 0  # tokens that were known when it was admitted last: the prompt, after a preemption more
    lane: int = 0  # of its prefill (lanes.py)
    block_table: list[int] | None = None  # the live one of the block manager; None: it waits
    num_published: int = 0  # blocks of it that others can find
    num_expected: int = 0  # tokens that a cache had of it when it came, or was preempted, or asked for blocks last
    num_cached: int = 0  # prompt tokens that it found computed when it was admitted first
    num_preemptions: int = 0
    num_wanted: int = 0  # free blocks that it did not get when it was to be admitted
    next_key: bytes | None = None  # of the first block then that nobody had computed
    was_scheduled: bool = False  # its first token has been computed at least once
    was_told: bool = False  # an output has been returned
    finish_reason: FinishReason | None = None  # set from the beginning where the answer so far is a whole one
    _keys: bytearray = field(init=False)  # of its full blocks so far

    def __post_init__(self) -> None:
        request = self.request
        prompt = TokenIds.of(request.prompt_token_ids)
        self.request_id = request.request_id
        self.token_ids = array("i")
        self.token_ids.frombytes(prompt.data)
        self.token_ids.extend(request.answer_token_ids)
        self.num_prompt = len(prompt)
        self.stop_token_ids = frozenset(request.stop_token_ids)
        self.finish_reason = self._ending()
        deadline_ms = request.deadline_ms
        self.rank = request.priority, math.inf if deadline_ms is None else deadline_ms, self.arrival
        self._keys = bytearray(request.block_hashes)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def num_uncomputed(self) -> int:
        """Tokens to compute before the next one can be sampled: 1 in decode, more in prefill."""
        return len(self.token_ids) + self.num_unknown - self.num_computed

    @property
    def has_last_token_on_its_way(self) -> bool:
        """Whether what planned steps sample of it is the rest of what was asked for."""
        return self.num_generated + self.num_unknown >= self.request.max_tokens

    @property
    def num_prefill_left(self) -> int:
        """Tokens of the prefill that are not computed yet; of a waiting sequence this is not known."""
        return max(0, self.num_prefill - self.num_computed)

    @property
    def shares(self) -> bool:
        """Whether it finds blocks of others, and leaves its own."""
        return bool(self.request.cache_seed)

    def keys(self, block_size: int, first: int = 0) -> Iterator[bytes]:
        """Return the keys of the blocks that it may find, from one on. The last token is in none of them."""
        if self.shares:
            for index in range(first, (len(self.token_ids) - 1) // block_size):
                yield self.key(index, block_size)

    def key(self, index: int, block_size: int) -> bytes:
        """Return the key of a block whose tokens are known."""
        keys, tokens = self._keys, self.token_ids
        while len(keys) <= index * KEY_BYTES:
            at = len(keys) // KEY_BYTES
            before = bytes(keys[-KEY_BYTES:]) or self.request.cache_seed
            keys += next_key(before, tokens[at * block_size : (at + 1) * block_size].tobytes())
        return bytes(keys[index * KEY_BYTES : (index + 1) * KEY_BYTES])

    def forget_keys(self) -> None:
        """Make its keys from its tokens: those that came are of blocks of another size, or missing."""
        self._keys.clear()

    def lose_patience(self) -> None:
        """Go before every deadline of the same priority. It stands in no list by rank meanwhile."""
        self.rank = self.request.priority, -math.inf, self.arrival

    def append(self, token_id: int) -> FinishReason | None:
        """Add a sampled token. Finish on a stop token or on the last one that was asked for; return why, if so."""
        self.token_ids.append(token_id)
        if token_id in self.stop_token_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) - self.num_prompt >= self.request.max_tokens:
            self.finish_reason = "length"
        return self.finish_reason

    def _ending(self) -> FinishReason | None:
        """Return why nothing comes after the answer with which it came, by its last token and its length."""
        if self.num_generated and self.token_ids[-1] in self.stop_token_ids:
            return "stop"
        return "length" if self.num_generated >= self.request.max_tokens else None
