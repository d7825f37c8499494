"""Causal attention of a mixed batch of prefill chunks and decode steps over a paged KV cache.

Shape suffixes: T tokens of the step, B sequences of a decode group, M blocks of the longest of them, N = M * block_size
KV positions, Q query tokens of one sequence, H query heads and V KV heads on this rank, G = H / V, D head dim,
P blocks in the cache, S slots of a block.

A sequence's query is the last of its context: query i of Q sees KV positions 0 .. context - Q + i.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.bias import CausalBias


@dataclass(frozen=True)
class DecodeGroup:
    """Sequences with one query token each, of similar length, computed as one padded batch."""

    rows_B: Tensor  # of the step's tokens
    block_tables_BM: Tensor  # padded with each sequence's first block, whose positions the mask hides
    mask_B11N: Tensor


@dataclass(frozen=True)
class PrefillChunk:
    """One sequence with several query tokens."""

    rows: slice  # of the step's tokens
    block_table_M: Tensor
    context_len: int
    mask: "Tensor | CausalBias | None"  # None: the chunk is the whole context, and plain causal


@dataclass(frozen=True)
class AttentionPlan:
    """What the attention of every layer of a step shares: which blocks to read and what to hide."""

    decode: list[DecodeGroup]
    prefill: list[PrefillChunk]

    @classmethod
    def build(
        cls,
        cu_query_lens_B1: NDArray[np.int32],
        context_lens_B: NDArray[np.int32],
        block_tables_BM: NDArray[np.int32],
        block_size: int,
        device: torch.device,
    ) -> "AttentionPlan":
        """Sort the sequences into decode groups and prefill chunks.

        cu_query_lens: where each sequence's tokens begin and the last ones end; context_lens: KV length of each
        sequence including this step's tokens; block_tables: at least the blocks that hold them, on the host.
        """
        buckets: dict[int, list[int]] = {}  # decode sequences by length, so that padding at most doubles the work
        prefill = []
        cu_query_lens, most_blocks = cu_query_lens_B1.tolist(), block_tables_BM.shape[1]
        for sequence, context_len in enumerate(context_lens_B.tolist()):
            start, end = cu_query_lens[sequence], cu_query_lens[sequence + 1]
            num_blocks = -(-context_len // block_size)
            assert 0 < end - start <= context_len, "a sequence has at least one query token, and KV for each"
            assert num_blocks <= most_blocks, "a sequence has blocks for all its tokens"
            if end - start == 1:
                buckets.setdefault((num_blocks - 1).bit_length(), []).append(sequence)
                continue
            table_M = torch.tensor(block_tables_BM[sequence, :num_blocks], device=device)
            mask = _chunk_mask(end - start, context_len, device)
            prefill.append(PrefillChunk(slice(start, end), table_M, context_len, mask))
        decode = [
            _decode_group(np.array(b), cu_query_lens_B1, context_lens_B, block_tables_BM, block_size, device)
            for b in buckets.values()
        ]
        return cls(decode, prefill)


def own_blocks(tables_BM: NDArray[np.int32], context_lens_B: NDArray[np.int32], block_size: int) -> NDArray[np.int32]:
    """Return tables whose blocks past a context are the sequence's first.

    What is hidden weighs 0, and 0 times NaN is NaN: a sequence that broke must not reach others by their padding.
    """
    is_needed_BM = np.arange(tables_BM.shape[1]) < -(-context_lens_B // block_size)[:, None]
    return np.where(is_needed_BM, tables_BM, tables_BM[:, :1])


def paged_attention(q_THD: Tensor, k_PSVD: Tensor, v_PSVD: Tensor, plan: AttentionPlan) -> Tensor:
    """Return softmax(q k / sqrt(D)) v per token, as (T, H, D). The cache already holds this step's keys and values."""
    out_THD = torch.empty_like(q_THD)
    for group in plan.decode:
        q_BHD = q_THD.index_select(0, group.rows_B)
        out_THD.index_copy_(0, group.rows_B, _attend_decode(q_BHD, k_PSVD, v_PSVD, group))
    for chunk in plan.prefill:
        out_THD[chunk.rows] = _attend_prefill(q_THD[chunk.rows], k_PSVD, v_PSVD, chunk)
    return out_THD


def paged_attention_plain(
    q_THD: Tensor,
    k_PSVD: Tensor,
    v_PSVD: Tensor,
    cu_query_lens: list[int],
    context_lens: list[int],
    block_tables: list[list[int]],
) -> Tensor:
    """Return the same token by token, in the words of the definition."""
    out_THD = torch.empty_like(q_THD)
    num_groups = q_THD.shape[1] // k_PSVD.shape[2]
    for sequence, context_len in enumerate(context_lens):
        start, end = cu_query_lens[sequence], cu_query_lens[sequence + 1]
        k_NHD, v_NHD = (
            cache[block_tables[sequence]].flatten(0, 1).repeat_interleave(num_groups, dim=1).float()
            for cache in (k_PSVD, v_PSVD)
        )
        for row in range(start, end):
            num_visible = context_len - (end - 1 - row)
            scores_HN = torch.einsum("hd,nhd->hn", q_THD[row].float(), k_NHD[:num_visible]) * q_THD.shape[-1] ** -0.5
            out_THD[row] = torch.einsum("hn,nhd->hd", scores_HN.softmax(-1), v_NHD[:num_visible]).to(q_THD.dtype)
    return out_THD


def _attend_decode(q_BHD: Tensor, k_PSVD: Tensor, v_PSVD: Tensor, group: DecodeGroup) -> Tensor:
    # With one query token, the heads that share a KV head can stand where query tokens stand: K and V are not repeated
    num_sequences, _, head_dim = q_BHD.shape
    q_BVGD = q_BHD.view(num_sequences, k_PSVD.shape[2], -1, head_dim)
    k_BVND, v_BVND = (_gather(cache, group.block_tables_BM, q_BHD.dtype).transpose(1, 2) for cache in (k_PSVD, v_PSVD))
    return F.scaled_dot_product_attention(q_BVGD, k_BVND, v_BVND, attn_mask=group.mask_B11N).flatten(1, 2)


def _attend_prefill(q_QHD: Tensor, k_PSVD: Tensor, v_PSVD: Tensor, chunk: PrefillChunk) -> Tensor:
    k_1VND, v_1VND = (
        _gather(cache, chunk.block_table_M, q_QHD.dtype)[: chunk.context_len].transpose(0, 1).unsqueeze(0)
        for cache in (k_PSVD, v_PSVD)
    )
    q_1HQD = q_QHD.transpose(0, 1).unsqueeze(0)
    is_causal = chunk.mask is None
    out_1HQD = F.scaled_dot_product_attention(
        q_1HQD, k_1VND, v_1VND, attn_mask=chunk.mask, is_causal=is_causal, enable_gqa=True
    )
    return out_1HQD.squeeze(0).transpose(0, 1)


def _gather(cache_PSVD: Tensor, block_tables_M: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the keys or values of the blocks in order, in the type of the queries: (..., M) -> (..., M * S, V, D)."""
    blocks = cache_PSVD.index_select(0, block_tables_M.flatten())  # several times faster than indexing on the CPU
    return blocks.view(*block_tables_M.shape[:-1], -1, *cache_PSVD.shape[2:]).to(dtype)


def _chunk_mask(query_len: int, context_len: int, device: torch.device) -> "Tensor | CausalBias | None":
    if query_len == context_len:
        return None
    if device.type == "cuda":
        # Flash attention knows this shape of mask; on the CPU it would be made anew in every layer. The zygote of a
        # worker with GPUs has imported it (supervisor/children/zygote.py); without GPUs nobody is to pay for it.
        from torch.nn.attention.bias import causal_lower_right

        return causal_lower_right(query_len, context_len)
    return torch.ones(query_len, context_len, dtype=torch.bool, device=device).tril(context_len - query_len)


def _decode_group(
    sequences_B: NDArray[np.int64],
    cu_query_lens: NDArray[np.int32],
    context_lens: NDArray[np.int32],
    block_tables: NDArray[np.int32],
    block_size: int,
    device: torch.device,
) -> DecodeGroup:
    lens_B = context_lens[sequences_B]
    num_blocks = -(-int(lens_B.max()) // block_size)
    lens_B1 = torch.from_numpy(lens_B).to(device)[:, None]
    mask_BN = torch.arange(num_blocks * block_size, device=device) < lens_B1
    rows_B = torch.from_numpy(cu_query_lens[sequences_B].astype(np.int64)).to(device)
    tables_BM = torch.from_numpy(own_blocks(block_tables[sequences_B, :num_blocks], lens_B, block_size)).to(device)
    return DecodeGroup(rows_B, tables_BM, mask_BN[:, None, None, :])
