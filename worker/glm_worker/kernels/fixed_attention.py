"""Causal attention over a paged KV cache on the CPU, whose bits depend on a query and its context alone.

paged_attention.py computes a decode step and a prefill by other kernels, and both in sizes that neighbours decide. Here
both are the same kernel with the same sums. torch's takes KV positions in blocks of 512, and the products in a block
add up in pieces that its length decides; so only such lengths are used whose sums begin alike. What is past a context
is hidden by its score and weighs exactly nothing. It does not matter in which step a query is computed, beside whom, or
how its context's KV was made.

Shape suffixes: T tokens of the step, B sequences of a decode group, M blocks of the longest of them, N KV positions, Q
query tokens of a tile, H query heads and V KV heads on this rank, G = H / V, R rows (G, or more to be enough), D head
dim, C blocks in the cache, S slots of a block.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.kernels.fixed_order import whole_rows
from glm_worker.kernels.paged_attention import own_blocks

_SPLIT = 512  # positions that torch's kernel takes at once
_PIECE = 192  # positions that a matrix product of MKL adds up in one go: up to 384 it would halve what is left
_LANES = 16  # positions that a vector operation takes at once: those left over are rounded in another way
_TILE = 128  # query tokens of a prefill that see the same positions, the later of them hidden
_HIDDEN = -1e30  # added to scores


@dataclass(frozen=True)
class DecodeGroup:
    """Sequences with one query token each, of similar length, computed as one batch."""

    rows_B: Tensor | None  # of the step's tokens; None: these are all, in this order
    tables_BM: Tensor  # padded with each sequence's first block, whose positions the mask hides
    mask_B11N: Tensor


@dataclass(frozen=True)
class Tile:
    """Some query tokens of a prefill."""

    rows: slice  # of the step's tokens
    num_missing: int  # queries that fill up the rows
    table_1M: Tensor
    mask_11QN: Tensor


@dataclass(frozen=True)
class FixedPlan:
    """What the attention of every layer of a step shares."""

    decode: list[DecodeGroup]
    tiles: list[Tile]
    num_tokens: int

    @classmethod
    def build(
        cls,
        cu_query_lens_B1: NDArray[np.int32],
        context_lens_B: NDArray[np.int32],
        block_tables_BM: NDArray[np.int32],
        block_size: int,
        dtype: torch.dtype,
    ) -> "FixedPlan":
        """Sort the sequences into decode groups and tiles of prefills, as AttentionPlan.build has them."""
        buckets: dict[int, list[int]] = {}  # decode sequences by length, so that padding at most doubles the work
        tiles: list[Tile] = []
        cu_query_lens, most_blocks = cu_query_lens_B1.tolist(), block_tables_BM.shape[1]
        for sequence, context_len in enumerate(context_lens_B.tolist()):
            start, end = cu_query_lens[sequence], cu_query_lens[sequence + 1]
            assert 0 < end - start <= context_len, "a sequence has at least one query token, and KV for each"
            assert -(-context_len // block_size) <= most_blocks, "a sequence has blocks for all its tokens"
            if end - start == 1:
                buckets.setdefault(fixed_length(context_len).bit_length(), []).append(sequence)
            else:
                tiles += _tiles(slice(start, end), context_len, block_tables_BM[sequence], block_size, dtype)
        is_alone = len(buckets) == 1 and not tiles
        decode = [
            _decode_group(
                np.array(sequences), cu_query_lens_B1, context_lens_B, block_tables_BM, block_size, dtype, is_alone
            )
            for sequences in buckets.values()
        ]
        return cls(decode, tiles, cu_query_lens[-1])


def fixed_length(num_positions: int) -> int:
    """Return how many positions to compute so that the sums over the first num_positions are always the same.

    Whole vectors, and no length whose last block of 512 would be halved.
    """
    length = -(-num_positions // _LANES) * _LANES
    whole, rest = divmod(length, _SPLIT)
    return whole * _SPLIT + (2 * _PIECE if _PIECE < rest < 2 * _PIECE else rest)


def fixed_attention(q_THD: Tensor, k_CSVD: Tensor, v_CSVD: Tensor, plan: FixedPlan) -> Tensor:
    """Return softmax(q k / sqrt(D)) v per token, as (T, H, D). The cache already holds this step's keys and values.

    Rows of q past the plan's tokens fill up a step: they come back as zeros.
    """
    if len(plan.decode) == 1 and plan.decode[0].rows_B is None and len(q_THD) == plan.num_tokens:
        return _attend_decode(q_THD, k_CSVD, v_CSVD, plan.decode[0])
    out_THD = torch.empty_like(q_THD)
    out_THD[plan.num_tokens :] = 0
    for group in plan.decode:
        if group.rows_B is None:
            out_THD[: plan.num_tokens] = _attend_decode(q_THD[: plan.num_tokens], k_CSVD, v_CSVD, group)
        else:
            q_BHD = q_THD.index_select(0, group.rows_B)
            out_THD.index_copy_(0, group.rows_B, _attend_decode(q_BHD, k_CSVD, v_CSVD, group))
    for tile in plan.tiles:
        out_THD[tile.rows] = _attend_tile(q_THD[tile.rows], k_CSVD, v_CSVD, tile)
    return out_THD


def _decode_group(
    sequences_B: NDArray[np.int64],
    cu_query_lens: NDArray[np.int32],
    context_lens: NDArray[np.int32],
    block_tables: NDArray[np.int32],
    block_size: int,
    dtype: torch.dtype,
    is_alone: bool,
) -> DecodeGroup:
    lens_B = context_lens[sequences_B]
    length = fixed_length(int(lens_B.max()))
    return DecodeGroup(
        rows_B=None if is_alone else torch.from_numpy(cu_query_lens[sequences_B].astype(np.int64)),
        tables_BM=torch.from_numpy(_cut_or_filled_up(block_tables[sequences_B], lens_B, length, block_size)),
        mask_B11N=_hidden(torch.from_numpy(lens_B), length, dtype)[:, None, None, :],
    )


def _tiles(
    rows: slice, context_len: int, table_M: NDArray[np.int32], block_size: int, dtype: torch.dtype
) -> list[Tile]:
    tiles = []
    for start in range(rows.start, rows.stop, _TILE):
        stop = min(start + _TILE, rows.stop)
        end = context_len - (rows.stop - stop)
        length = fixed_length(end)
        num_missing = whole_rows(stop - start) - (stop - start)
        seen_Q = torch.arange(end - (stop - start) + 1, end + num_missing + 1)
        tiles.append(
            Tile(
                rows=slice(start, stop),
                num_missing=num_missing,
                table_1M=torch.from_numpy(_cut_or_filled_up(table_M[None], np.array([end]), length, block_size)),
                mask_11QN=_hidden(seen_Q, length, dtype)[None, None],
            )
        )
    return tiles


def _cut_or_filled_up(
    tables_BM: NDArray[np.int32], context_lens_B: NDArray[np.int32], length: int, block_size: int
) -> NDArray[np.int32]:
    """Return the blocks of length positions: the last vector may reach past the last block of a context."""
    missing = -(-length // block_size) - tables_BM.shape[1]
    if missing > 0:
        tables_BM = np.pad(tables_BM, ((0, 0), (0, missing)))
    return own_blocks(tables_BM[:, : -(-length // block_size)], context_lens_B, block_size)


def _hidden(num_seen_X: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Return (X, N): what to add to scores so that each row sees its first num_seen positions."""
    hidden_XN = torch.arange(length) >= num_seen_X[:, None]
    return torch.zeros(hidden_XN.shape, dtype=dtype).masked_fill_(hidden_XN, _HIDDEN)


def _attend_decode(q_BHD: Tensor, k_CSVD: Tensor, v_CSVD: Tensor, group: DecodeGroup) -> Tensor:
    """Return (B, H, D). The heads that share a KV head stand where query tokens stand."""
    num_kv_heads, head_dim = k_CSVD.shape[2:]
    q_BVRD = q_BHD.view(len(q_BHD), num_kv_heads, -1, head_dim)
    group_size = q_BVRD.shape[2]
    if missing := whole_rows(group_size) - group_size:
        q_BVRD = F.pad(q_BVRD, (0, 0, 0, missing))
    length = group.mask_B11N.shape[-1]
    k_BVND, v_BVND = (
        _gather(cache, group.tables_BM, length).to(q_BHD.dtype).transpose(1, 2) for cache in (k_CSVD, v_CSVD)
    )
    return _attend(q_BVRD, k_BVND, v_BVND, group.mask_B11N)[:, :, :group_size].flatten(1, 2)


def _attend_tile(q_QHD: Tensor, k_CSVD: Tensor, v_CSVD: Tensor, tile: Tile) -> Tensor:
    """Return (Q, H, D) without the rows that fill up."""
    num_wanted, num_kv_heads = len(q_QHD), k_CSVD.shape[2]
    if tile.num_missing:
        q_QHD = F.pad(q_QHD, (0, 0, 0, 0, 0, tile.num_missing))
    q_VGQD = q_QHD.view(len(q_QHD), num_kv_heads, -1, q_QHD.shape[-1]).permute(1, 2, 0, 3)
    length = tile.mask_11QN.shape[-1]
    k_VGND, v_VGND = (
        _gather(cache, tile.table_1M, length)[0]
        .to(q_QHD.dtype)
        .transpose(0, 1)[:, None]
        .expand(-1, q_VGQD.shape[1], -1, -1)
        for cache in (k_CSVD, v_CSVD)
    )
    return _attend(q_VGQD, k_VGND, v_VGND, tile.mask_11QN).permute(2, 0, 1, 3).flatten(1, 2)[:num_wanted]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _gather(cache_CSVD: Tensor, tables_BM: Tensor, length: int) -> Tensor:
    """Return the keys or values of the blocks in order: (B, M) -> (B, N, V, D)."""
    blocks = cache_CSVD.index_select(0, tables_BM.flatten())
    return blocks.view(len(tables_BM), -1, *cache_CSVD.shape[2:])[:, :length]
