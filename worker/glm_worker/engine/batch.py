"""A plan as index arrays: which token stands where, and in which KV slot. Lists; the runner makes tensors of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from glm_worker.scheduler.plan import ScheduledSequence


@dataclass(frozen=True, slots=True)
class BatchIndices:
    """The tokens of all sequences of a step, one sequence after the other. The fields are those of ForwardBatch."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)  # block * block_size + offset
    cu_query_lens: list[int] = field(default_factory=lambda: [0])
    context_lens: list[int] = field(default_factory=list)
    block_tables: list[list[int]] = field(default_factory=list)
    logit_rows: list[int] = field(default_factory=list)


def build(sequences: Sequence[ScheduledSequence], block_size: int) -> BatchIndices:
    """Return the index arrays of a step. The rows of logits are in the order of the sequences that are sampled."""
    batch = BatchIndices()
    for sequence in sequences:
        table = sequence.block_table
        batch.token_ids.extend(sequence.token_ids)
        batch.positions.extend(range(sequence.start, sequence.end))
        batch.slots.extend(
            table[p // block_size] * block_size + p % block_size for p in range(sequence.start, sequence.end)
        )
        batch.cu_query_lens.append(len(batch.token_ids))
        batch.context_lens.append(sequence.end)
        batch.block_tables.append(table)
        if sequence.is_sampled:
            batch.logit_rows.append(len(batch.token_ids) - 1)
    return batch
