"""Paged attention in C (attention.c), in place: no block is copied. Its twin is kernels/paged_attention.py.

Shape suffixes: T tokens of the step, B sequences, M blocks of the longest of them, H query heads and V KV heads on this
rank, D head dim, P blocks in the cache, S slots of a block.

The bits of a query depend on the query and its context only: not on the other tokens of the step, on how a prompt is
cut into chunks, on the number of threads, nor on where blocks lie.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from glm_worker.kernels.cpu.library import BF16, F32, Library, Team, load

SPLIT: Final = 256  # positions whose sums stand alone before they join, as in attention.c
MAX_HEAD_DIM: Final = 256

_DTYPES: Final = {torch.float32: F32, torch.bfloat16: BF16}
_LINE: Final = 64  # bytes
_POINTER, _INT64, _INT32, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class AttentionArgs(ctypes.Structure):
    """glm_attention_args of attention.h."""

    _fields_ = (
        ("q", _POINTER),
        ("q_stride", _INT64),
        ("k_cache", _POINTER),
        ("v_cache", _POINTER),
        ("cu_query_lens", _POINTER),
        ("context_lens", _POINTER),
        ("block_tables", _POINTER),
        ("table_stride", _INT64),
        ("out", _POINTER),
        ("out_stride", _INT64),
        ("scratch", _POINTER),
        ("scratch_bytes", _INT64),
        ("num_seqs", _INT32),
        ("num_heads", _INT32),
        ("num_kv_heads", _INT32),
        ("head_dim", _INT32),
        ("block_size", _INT32),
        ("kv_dtype", _INT32),
        ("scale", _FLOAT),
    )


@dataclass(frozen=True)
class Sequences:
    """Whose tokens a step has, and where their keys and values lie. int32, on the CPU."""

    cu_query_lens_B1: Tensor  # where each sequence's tokens begin in T, and T
    context_lens_B: Tensor  # KV length of each sequence, this step's tokens included
    block_tables_BM: Tensor  # blocks in order; what is past a context is not read

    def check(self, num_tokens: int, num_blocks: int, block_size: int) -> None:
        """Raise ValueError where a kernel would read outside of q or of the cache."""
        num_seqs = len(self.context_lens_B)
        _expect("cu_query_lens", self.cu_query_lens_B1, (num_seqs + 1,), torch.int32)
        _expect("context_lens", self.context_lens_B, (num_seqs,), torch.int32)
        _expect("block_tables", self.block_tables_BM, (num_seqs, -1), torch.int32, rows_apart=True)
        starts = self.cu_query_lens_B1.tolist()
        if starts[0] != 0 or starts[-1] != num_tokens:
            raise ValueError(f"cu_query_lens goes from {starts[0]} to {starts[-1]}: expected 0 to {num_tokens} tokens")
        for seq, context_len in enumerate(self.context_lens_B.tolist()):
            query_len, num_needed = starts[seq + 1] - starts[seq], -(-context_len // block_size)
            if not 0 <= query_len <= context_len:
                raise ValueError(f"sequence {seq}: {query_len} query tokens with a context of {context_len}")
            if num_needed > self.block_tables_BM.shape[1]:
                raise ValueError(f"sequence {seq}: {num_needed} blocks are needed, the table has room for fewer")
            blocks = self.block_tables_BM[seq, :num_needed]
            if num_needed and not 0 <= int(blocks.min()) <= int(blocks.max()) < num_blocks:
                raise ValueError(f"sequence {seq}: a block is outside of the cache; allowed are 0 to {num_blocks - 1}")


def paged_attention(
    team: Team, q_THD: Tensor, k_PSVD: Tensor, v_PSVD: Tensor, sequences: Sequences, library: Library | None = None
) -> Tensor:
    """Return softmax(q k / sqrt(D)) v per token as (T, H, D) in fp32. The cache already holds the step's keys, values.

    q is fp32, a token's heads packed; the cache is fp32 or bf16 and packed. Query i of a sequence's Q sees its first
    context - Q + i + 1 positions. Raises ValueError for anything else.
    """
    num_tokens, num_heads, head_dim = q_THD.shape
    num_blocks, block_size, num_kv_heads, _ = k_PSVD.shape
    _expect("q", q_THD, (num_tokens, num_heads, head_dim), torch.float32, rows_apart=True)
    _expect("k", k_PSVD, (num_blocks, block_size, num_kv_heads, head_dim), *_DTYPES)
    _expect("v", v_PSVD, tuple(k_PSVD.shape), k_PSVD.dtype)
    if not 0 < head_dim <= MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {head_dim}: allowed are 1 to {MAX_HEAD_DIM}")
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} query heads: expected a multiple of the {num_kv_heads} KV heads")
    sequences.check(num_tokens, num_blocks, block_size)
    out_THD = torch.empty(num_tokens, num_heads, head_dim)
    args = AttentionArgs(
        q=q_THD.data_ptr(),
        q_stride=q_THD.stride(0),
        k_cache=k_PSVD.data_ptr(),
        v_cache=v_PSVD.data_ptr(),
        cu_query_lens=sequences.cu_query_lens_B1.data_ptr(),
        context_lens=sequences.context_lens_B.data_ptr(),
        block_tables=sequences.block_tables_BM.data_ptr(),
        table_stride=sequences.block_tables_BM.stride(0),
        out=out_THD.data_ptr(),
        out_stride=num_heads * head_dim,
        num_seqs=len(sequences.context_lens_B),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        block_size=block_size,
        kv_dtype=_DTYPES[k_PSVD.dtype],
        scale=head_dim**-0.5,
    )
    functions = _functions(library or load())
    args.scratch_bytes = functions.scratch_bytes(ctypes.byref(args), team.num_threads)
    scratch = torch.empty(args.scratch_bytes + _LINE, dtype=torch.uint8)
    args.scratch = -(-scratch.data_ptr() // _LINE) * _LINE
    functions.attention(team.pointer, ctypes.byref(args))
    return out_THD


@dataclass(frozen=True)
class _Functions:
    attention: Any
    scratch_bytes: Any


@cache
def _functions(library: Library) -> _Functions:
    return _Functions(
        attention=library.function("glm_attention", (_POINTER, _POINTER)),
        scratch_bytes=library.function("glm_attention_scratch", (_POINTER, ctypes.c_int), _INT64),
    )


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype, rows_apart: bool = False) -> None:
    """Raise ValueError where a tensor is not what the kernel reads; -1 is any size, rows_apart allows gaps."""
    row = tensor[0] if rows_apart and tensor.dim() > 1 and len(tensor) else tensor
    if tensor.dim() != len(shape) or any(want not in (-1, has) for want, has in zip(shape, tensor.shape, strict=True)):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {shape}")
    if tensor.dtype not in dtypes or tensor.device.type != "cpu":
        allowed = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}: expected {allowed} on the CPU")
    if not row.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}: expected rows that are packed inside")
