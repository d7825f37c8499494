# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"
"""Paged attention on a GPU, in place: blocks of any size are read where they lie, long contexts by several programs.

Its twin is paged_attention_plain. A decode step depends on nothing that the host knows of its sequences: a CUDA graph
can hold it. How many splits a context has is chosen by the step, so the last bits of a result may differ from step to
step, as they do with torch's kernels on GPUs. NOT RUN ON A GPU YET: checked by Triton's interpreter.

Shape suffixes: T tokens of the step, B sequences, M blocks of a table, H query heads and V KV heads on this rank,
G = H / V, D head dim, P blocks in the cache, S slots of a block, N tiles (some query tokens of one sequence), R rows of
a tile (its tokens x G, padded), X splits.
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.kernels.to_device import to_device

_POSITIONS = 64  # that a program takes at once
_PREFILL_ROWS = 64
_LEAST = 16  # rows and dims that a product of tensor cores has
_PROGRAMS = 264  # about twice as many as an H100 or H200 has multiprocessors: enough to keep all of them reading
_MOST_SPLITS = 64


@dataclass(frozen=True)
class Tiles:
    """Tiles of one kind, computed by one launch."""

    seq_first_N2: Tensor  # int32 on the device: the sequence, and the first of its query tokens of this step
    num_tokens: int  # of a tile, at most
    num_splits: int


@dataclass(frozen=True)
class CudaPlan:
    """What the attention of every layer of a step shares."""

    tiles: tuple[Tiles, ...]
    cu_query_lens_B1: Tensor  # int32, on the device as what follows
    context_lens_B: Tensor
    block_tables_BM: Tensor

    @classmethod
    def of_decode(
        cls, cu_query_lens_B1: Tensor, context_lens_B: Tensor, block_tables_BM: Tensor, num_kv_heads: int
    ) -> "CudaPlan":
        """Return the plan of sequences with one token each. What their contexts are is the device's business.

        A sequence with context 0 fills up a graph: its rows come back as zeros.
        """
        num_seqs = len(context_lens_B)
        numbers_B = torch.arange(num_seqs, dtype=torch.int32, device=context_lens_B.device)
        tiles_N2 = torch.stack([numbers_B, torch.zeros_like(numbers_B)], dim=1)
        tiles = (Tiles(tiles_N2, 1, splits_for(num_seqs * num_kv_heads)),) if num_seqs else ()
        return cls(tiles, cu_query_lens_B1, context_lens_B, block_tables_BM)

    @classmethod
    def of_step(
        cls,
        query_lens_B: NDArray[np.int32],
        cu_query_lens_B1: Tensor,
        context_lens_B: Tensor,
        block_tables_BM: Tensor,
        group_size: int,
        num_kv_heads: int,
    ) -> "CudaPlan":
        """Return the plan of any step. query_lens: tokens of each sequence, on the host."""
        device = context_lens_B.device
        decode = np.flatnonzero(query_lens_B == 1).astype(np.int32)
        per_tile = max(1, _PREFILL_ROWS // group_size)
        chunks = [
            (seq, first) for seq in np.flatnonzero(query_lens_B > 1) for first in range(0, query_lens_B[seq], per_tile)
        ]
        tiles = []
        if len(decode):
            firsts = np.stack([decode, np.zeros_like(decode)], axis=1)
            tiles.append(Tiles(to_device(firsts, device), 1, splits_for(len(decode) * num_kv_heads)))
        if chunks:
            firsts = np.array(chunks, dtype=np.int32)
            tiles.append(Tiles(to_device(firsts, device), per_tile, splits_for(len(chunks) * num_kv_heads)))
        return cls(tuple(tiles), cu_query_lens_B1, context_lens_B, block_tables_BM)


def splits_for(num_programs: int) -> int:
    """Return into how many parts to cut contexts so that a GPU has enough programs; a power of 2."""
    wanted = min(_MOST_SPLITS, _PROGRAMS // max(num_programs, 1))
    return 1 << max(wanted, 1).bit_length() - 1


def paged_attention(q_THD: Tensor, k_PSVD: Tensor, v_PSVD: Tensor, plan: CudaPlan) -> Tensor:
    """Return softmax(q k / sqrt(D)) v per token, as (T, H, D). The cache already holds this step's keys and values.

    q may have gaps between tokens. Launches two kernels for each kind of tiles that has splits, one for others.
    """
    num_tokens, num_heads, head_dim = q_THD.shape
    _, block_size, num_kv_heads, _ = k_PSVD.shape
    group_size = num_heads // num_kv_heads
    out_THD = q_THD.new_zeros(num_tokens, num_heads, head_dim)
    block_dim = max(_LEAST, triton.next_power_of_2(head_dim))
    for tiles in plan.tiles:
        num_tiles, num_splits = len(tiles.seq_first_N2), tiles.num_splits
        rows = max(_LEAST, triton.next_power_of_2(tiles.num_tokens * group_size))
        parts = num_tiles * num_kv_heads * num_splits * rows if num_splits > 1 else 0
        part = q_THD.new_empty(parts, head_dim, dtype=torch.float32)
        weight = q_THD.new_empty(parts, dtype=torch.float32)
        shared = (out_THD, part, weight, tiles.seq_first_N2, plan.cu_query_lens_B1, plan.context_lens_B)
        sizes = {
            "num_heads": num_heads,
            "group_size": group_size,
            "head_dim": head_dim,
            "num_splits": num_splits,
            "tokens": tiles.num_tokens,
            "rows": rows,
            "block_dim": block_dim,
        }
        _attend[(num_tiles, num_kv_heads, num_splits)](
            *(q_THD, k_PSVD, v_PSVD, *shared, plan.block_tables_BM),
            *(q_THD.stride(0), plan.block_tables_BM.stride(0), head_dim**-0.5),
            **sizes,
            block_size=block_size,
            positions=_POSITIONS,
        )
        if num_splits > 1:
            _join[(num_tiles, num_kv_heads)](*shared, **sizes)
    return out_THD


@triton.jit
def _attend(
    q,
    k,
    v,
    out,
    part,
    weight,
    tiles,
    cu_query_lens,
    context_lens,
    tables,
    q_stride,
    table_stride,
    scale,
    num_heads: tl.constexpr,
    group_size: tl.constexpr,
    head_dim: tl.constexpr,
    num_splits: tl.constexpr,
    tokens: tl.constexpr,
    rows: tl.constexpr,
    block_dim: tl.constexpr,
    block_size: tl.constexpr,
    positions: tl.constexpr,
):
    """One split of one tile for one KV head: online softmax in fp32."""
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    seq, first = tl.load(tiles + tile * 2), tl.load(tiles + tile * 2 + 1)
    start, end = tl.load(cu_query_lens + seq), tl.load(cu_query_lens + seq + 1)
    context = tl.load(context_lens + seq)
    num_queries = end - start
    row = tl.arange(0, rows)
    dim = tl.arange(0, block_dim)
    query = first + row // group_size
    is_row = (row < tokens * group_size) & (query < num_queries)
    is_dim = dim < head_dim
    head = kv_head * group_size + row % group_size
    q_at = (start + query).to(tl.int64)[:, None] * q_stride + head[:, None] * head_dim + dim[None, :]
    q_RD = tl.load(q + q_at, mask=is_row[:, None] & is_dim[None, :], other=0.0)
    seen = context - num_queries + query + 1
    last = tl.minimum(context, context - num_queries + first + tokens)
    span = tl.cdiv(tl.cdiv(last, num_splits), positions) * positions
    stop = tl.minimum(last, (split + 1) * span)
    top = tl.full([rows], -float("inf"), tl.float32)
    total = tl.zeros([rows], tl.float32)
    sum_RD = tl.zeros([rows, block_dim], tl.float32)
    kv_stride = num_heads // group_size * head_dim
    for begin in range(split * span, stop, positions):
        position = begin + tl.arange(0, positions)
        is_there = position < stop
        block = tl.load(tables + seq * table_stride + position // block_size, mask=is_there, other=0)
        slot = block.to(tl.int64) * block_size + position % block_size
        at = slot * kv_stride + kv_head * head_dim
        k_DN = tl.load(k + at[None, :] + dim[:, None], mask=is_there[None, :] & is_dim[:, None], other=0.0)
        scores = tl.dot(q_RD, k_DN.to(q_RD.dtype), input_precision="ieee") * scale
        scores = tl.where(is_there[None, :] & (position[None, :] < seen[:, None]), scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        floor = tl.where(new_top == -float("inf"), 0.0, new_top)  # a row that has seen nothing yet
        weights = tl.exp(scores - floor[:, None])
        keep = tl.exp(top - floor)
        v_ND = tl.load(v + at[:, None] + dim[None, :], mask=is_there[:, None] & is_dim[None, :], other=0.0)
        sum_RD = sum_RD * keep[:, None] + tl.dot(weights.to(q_RD.dtype), v_ND.to(q_RD.dtype), input_precision="ieee")
        total = total * keep + tl.sum(weights, axis=1)
        top = new_top
    divisor = tl.where(total == 0.0, 1.0, total)
    result = sum_RD / divisor[:, None]
    if num_splits == 1:
        out_at = ((start + query).to(tl.int64) * num_heads + head)[:, None] * head_dim + dim[None, :]
        is_written = is_row & (seen > 0)
        tl.store(out + out_at, result.to(out.dtype.element_ty), mask=is_written[:, None] & is_dim[None, :])
    else:
        at = ((tile * tl.num_programs(1) + kv_head) * num_splits + split).to(tl.int64) * rows + row
        tl.store(part + at[:, None] * head_dim + dim[None, :], result, mask=is_dim[None, :])
        tl.store(weight + at, tl.where(total == 0.0, -float("inf"), top + tl.log(divisor)))


@triton.jit
def _join(
    out,
    part,
    weight,
    tiles,
    cu_query_lens,
    context_lens,
    num_heads: tl.constexpr,
    group_size: tl.constexpr,
    head_dim: tl.constexpr,
    num_splits: tl.constexpr,
    tokens: tl.constexpr,
    rows: tl.constexpr,
    block_dim: tl.constexpr,
):
    """Put the splits of one tile together, in ascending order."""
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    seq, first = tl.load(tiles + tile * 2), tl.load(tiles + tile * 2 + 1)
    start, end = tl.load(cu_query_lens + seq), tl.load(cu_query_lens + seq + 1)
    row = tl.arange(0, rows)
    dim = tl.arange(0, block_dim)
    query = first + row // group_size
    seen = tl.load(context_lens + seq) - (end - start) + query + 1
    is_row = (row < tokens * group_size) & (query < end - start) & (seen > 0)
    head = kv_head * group_size + row % group_size
    is_dim = dim[None, :] < head_dim
    base = (tile * tl.num_programs(1) + kv_head).to(tl.int64) * num_splits * rows + row
    top = tl.full([rows], -float("inf"), tl.float32)
    for split in range(num_splits):
        top = tl.maximum(top, tl.load(weight + base + split * rows))
    top = tl.where(top == -float("inf"), 0.0, top)
    total = tl.zeros([rows], tl.float32)
    sum_RD = tl.zeros([rows, block_dim], tl.float32)
    for split in range(num_splits):
        share = tl.exp(tl.load(weight + base + split * rows) - top)
        part_RD = tl.load(part + (base + split * rows)[:, None] * head_dim + dim[None, :], mask=is_dim, other=0.0)
        sum_RD += share[:, None] * part_RD
        total += share
    result = sum_RD / tl.where(total == 0.0, 1.0, total)[:, None]
    at = ((start + query).to(tl.int64) * num_heads + head)[:, None] * head_dim + dim[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=is_row[:, None] & is_dim)
