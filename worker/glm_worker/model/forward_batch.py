"""The input of one forward pass. Shape suffixes: T tokens of the step, S rows whose logits are wanted."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ForwardBatch:
    """Tokens of several sequences, one after the other, and where their keys and values live. B sequences."""

    token_ids_T: Tensor  # int64
    positions_T: Tensor  # int64, position of each token in its sequence
    slots_T: Tensor  # int64, flat KV slot (block * block_size + offset) that each token's key and value go to
    cu_query_lens: list[int]  # B + 1: where each sequence's tokens begin in T, and T
    context_lens: list[int]  # B: KV length of each sequence, this step's tokens included
    block_tables: list[list[int]]  # B: the blocks of each sequence in order; more than needed is fine
    logit_rows_S: Tensor  # int64, rows of T
