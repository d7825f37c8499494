# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"
"""What happens to rows between the matrix products of a layer: add and norm; bias, QK norm, RoPE and KV write.

The twins are model/layers.py's RMSNorm and Rotation, which round to the activations' type after each operation; here
sums are fp32 and rounded once. NOT RUN ON A GPU YET: checked by Triton's interpreter.

Shape suffixes: T tokens, D hidden size, H query heads and V KV heads on this rank, C head dim, R half of the
rotated dims.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


def add_norm(x_TD: Tensor, delta_TD: Tensor | None, weight_D: Tensor, eps: float) -> Tensor:
    """Add delta to x in place, and return the RMS norm of the sum times weight, as (T, D)."""
    num_tokens, size = x_TD.shape
    out_TD = torch.empty_like(x_TD)
    if num_tokens:
        _add_norm[(num_tokens,)](
            *(x_TD, x_TD if delta_TD is None else delta_TD, weight_D, out_TD, eps),
            size=size,
            block=triton.next_power_of_2(size),
            has_delta=delta_TD is not None,
        )
    return out_TD


@dataclass(frozen=True)
class HeadWeights:
    """What the projections of heads need beside the product itself."""

    bias: Tensor | None  # (H + 2V) * C
    q_norm_C: Tensor | None
    k_norm_C: Tensor | None
    eps: float


def rotate_and_store(
    qkv_TX: Tensor,
    weights: HeadWeights,
    cosines_PR: Tensor,
    sines_PR: Tensor,
    positions_T: Tensor,
    slots_T: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
) -> Tensor:
    """Return q as (T, H, C), normed and rotated; store keys and values of the tokens in their slots.

    qkv: rows of H query, V key and V value heads. cosines and sines: fp32, a row a position. A token
    with slot -1 fills up a graph: nothing is stored for it.
    """
    num_tokens = len(qkv_TX)
    _, _, num_kv_heads, head_dim = k_cache.shape
    num_all = qkv_TX.shape[1] // head_dim
    num_heads = num_all - 2 * num_kv_heads
    q_THC = qkv_TX.new_empty(num_tokens, num_heads, head_dim)
    if num_tokens:
        _rotate_and_store[(num_tokens, num_all)](
            *(qkv_TX, q_THC),
            *(qkv_TX if x is None else x for x in (weights.bias, weights.q_norm_C, weights.k_norm_C)),
            *(cosines_PR, sines_PR, positions_T, slots_T, k_cache, v_cache, qkv_TX.stride(0), weights.eps),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            half=cosines_PR.shape[1],
            block=triton.next_power_of_2(head_dim),
            has_bias=weights.bias is not None,
            has_norm=weights.q_norm_C is not None,
        )
    return q_THC


@triton.jit
def _add_norm(x, delta, weight, out, eps, size: tl.constexpr, block: tl.constexpr, has_delta: tl.constexpr):
    at = tl.arange(0, block)
    is_there = at < size
    row = tl.program_id(0).to(tl.int64) * size
    value = tl.load(x + row + at, mask=is_there, other=0.0).to(tl.float32)
    if has_delta:
        value += tl.load(delta + row + at, mask=is_there, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row + at, rounded, mask=is_there)
        value = rounded.to(tl.float32)
    normed = value * tl.rsqrt(tl.sum(value * value, axis=0) / size + eps)
    weights = tl.load(weight + at, mask=is_there, other=0.0)
    tl.store(out + row + at, (normed.to(x.dtype.element_ty) * weights).to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _rotate_and_store(
    qkv,
    q,
    bias,
    q_norm,
    k_norm,
    cosines,
    sines,
    positions,
    slots,
    k_cache,
    v_cache,
    row_stride,
    eps,
    num_heads: tl.constexpr,
    num_kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    half: tl.constexpr,
    block: tl.constexpr,
    has_bias: tl.constexpr,
    has_norm: tl.constexpr,
):
    """One head of one token. Dim i of the first half turns with dim i + half; those past both halves stay."""
    token, head = tl.program_id(0), tl.program_id(1)
    dim = tl.arange(0, block)
    is_there = dim < head_dim
    partner = tl.where(dim < half, dim + half, tl.where(dim < 2 * half, dim - half, dim))
    row = token.to(tl.int64) * row_stride + head * head_dim
    value = tl.load(qkv + row + dim, mask=is_there, other=0.0).to(tl.float32)
    other = tl.load(qkv + row + partner, mask=is_there, other=0.0).to(tl.float32)
    if has_bias:
        value += tl.load(bias + head * head_dim + dim, mask=is_there, other=0.0).to(tl.float32)
        other += tl.load(bias + head * head_dim + partner, mask=is_there, other=0.0).to(tl.float32)
    is_value = head >= num_heads + num_kv_heads
    if has_norm:
        norm = q_norm if head < num_heads else k_norm
        factor = tl.where(is_value, 1.0, tl.rsqrt(tl.sum(value * value, axis=0) / head_dim + eps))
        weight = tl.load(norm + dim, mask=is_there, other=0.0).to(tl.float32)
        partner_weight = tl.load(norm + partner, mask=is_there, other=0.0).to(tl.float32)
        value *= factor * tl.where(is_value, 1.0, weight)
        other *= factor * tl.where(is_value, 1.0, partner_weight)
    turns = dim < tl.where(is_value, 0, 2 * half)
    angle = tl.load(positions + token) * half + tl.where(dim < half, dim, dim - half)
    cosine = tl.load(cosines + angle, mask=turns, other=1.0)
    sine = tl.load(sines + angle, mask=turns, other=0.0)
    value = value * cosine + other * tl.where(dim < half, -sine, sine)
    if head < num_heads:
        q_at = (token.to(tl.int64) * num_heads + head) * head_dim + dim
        tl.store(q + q_at, value.to(q.dtype.element_ty), mask=is_there)
    else:
        slot = tl.load(slots + token)
        kv_head = (head - num_heads) % num_kv_heads
        at = (slot * num_kv_heads + kv_head) * head_dim + dim
        stored = value.to(k_cache.dtype.element_ty)
        is_stored = dim < tl.where(slot >= 0, head_dim, 0)
        if is_value:
            tl.store(v_cache + at, stored, mask=is_stored)
        else:
            tl.store(k_cache + at, stored, mask=is_stored)
