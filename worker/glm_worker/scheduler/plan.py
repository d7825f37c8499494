"""What one step computes: a value that every rank derives for itself and none sends to another."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from glm_worker.request import SamplingParams


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """A run of tokens of one sequence, from position start on."""

    request_id: str
    start: int  # tokens before this one are in the KV cache already
    token_ids: Sequence[int]  # what this step computes, at least one
    block_table: list[int]  # holds start + len(token_ids) tokens at least; live until the next schedule()
    is_sampled: bool  # these are the last known tokens, so the next one is to be sampled
    sampling: SamplingParams
    is_decode: bool = False  # one token past what was known when it was admitted; all other tokens are prefill

    @property
    def end(self) -> int:
        """Context length after this step, and the position of the token that may be sampled."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """The plan of one step. Empty when there is nothing to compute."""

    step: int  # counts from 1
    sequences: tuple[ScheduledSequence, ...]
    first_scheduled: tuple[str, ...]  # requests computed for the first time
    preempted: tuple[str, ...]  # requests that lost their KV blocks to older ones

    @property
    def num_tokens(self) -> int:
        return sum(len(sequence.token_ids) for sequence in self.sequences)

    @property
    def prefill_tokens(self) -> int:
        """Tokens of prompts, and those that preempted requests must compute again."""
        return sum(len(sequence.token_ids) for sequence in self.sequences if not sequence.is_decode)

    @property
    def decode_tokens(self) -> int:
        """Tokens that this step generates for requests past their prefill."""
        return sum(sequence.is_decode for sequence in self.sequences)

    @property
    def sampled(self) -> list[ScheduledSequence]:
        """Sequences whose next token is to be sampled, in the order of their logits."""
        return [sequence for sequence in self.sequences if sequence.is_sampled]

    def digest(self, previous: int = 0) -> int:
        """Return a checksum of who computes what and where, chained to that of the step before.

        Ranks whose digests are equal have made equal plans since the generation began. 32 bits find a bug; they
        are no protection against malice.
        """
        head = f"{self.step} {' '.join(self.preempted)}"
        rows = [
            f"{s.request_id} {s.start} {len(s.token_ids)} {len(s.block_table)} {s.block_table[-1]}"
            for s in self.sequences
        ]
        return zlib.crc32("\n".join([head, *rows]).encode(), previous)
