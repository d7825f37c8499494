"""What one step computes: a value that every rank derives for itself and none sends to another."""

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from glm_worker.request import SamplingParams

UNKNOWN_TOKEN = -1
"""In place of a token that the step before samples: the plan was made before that step was committed."""


class ScheduledSequence(msgspec.Struct, frozen=True, gc=False):
    """A run of tokens of one sequence, from position start on. A struct, because a step makes hundreds of them."""

    request_id: str
    start: int  # tokens before this one are in the KV cache already
    token_ids: Sequence[int]  # what this step computes, at least one; from the scheduler an array of int32
    block_table: list[int]  # holds start + len(token_ids) tokens at least; live until the next schedule()
    is_sampled: bool  # these are the last known tokens, so the next one is to be sampled
    sampling: SamplingParams
    is_decode: bool = False  # one token past what was known when it was admitted; all other tokens are prefill

    @property
    def end(self) -> int:
        """Context length after this step, and the position of the token that may be sampled."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True)
class ScheduledBatch:
    """The plan of one step. Empty when there is nothing to compute."""

    step: int  # counts from 1
    sequences: tuple[ScheduledSequence, ...]
    first_scheduled: tuple[str, ...]  # requests computed for the first time
    preempted: tuple[str, ...]  # requests that lost their KV blocks to older ones
    zeroed: tuple[int, ...] = ()  # blocks to fill with zeros before anything is computed: they may hold NaN

    @cached_property
    def num_tokens(self) -> int:
        return sum([len(sequence.token_ids) for sequence in self.sequences])

    @cached_property
    def prefill_tokens(self) -> int:
        """Tokens of prompts, and those that preempted requests must compute again."""
        return self.num_tokens - sum([len(s.token_ids) for s in self.sequences if s.is_decode])

    @cached_property
    def decode_tokens(self) -> int:
        """Tokens that this step generates for requests past their prefill."""
        return sum([sequence.is_decode for sequence in self.sequences])

    @cached_property
    def sampled(self) -> list[ScheduledSequence]:
        """Sequences whose next token is to be sampled, in the order of their logits."""
        return [sequence for sequence in self.sequences if sequence.is_sampled]

    def digest(self, previous: int = 0) -> int:
        """Return a checksum of who computes what and where, chained to that of the step before.

        Ranks whose digests are equal have made equal plans since the generation began. 32 bits find a bug; they
        are no protection against malice. Of a table that was digested before only the last block counts.
        """
        names = "\n".join([" ".join(self.preempted), *[s.request_id for s in self.sequences]])
        numbers = array("q", [self.step, len(self.zeroed), *self.zeroed])
        for s in self.sequences:
            table = s.block_table
            numbers.extend((s.start, len(s.token_ids), len(table), table[-1]))
            if not s.is_decode:
                numbers.extend(table)
        return zlib.crc32(numbers.tobytes(), zlib.crc32(names.encode(), previous))
