"""Each Triton kernel against its plain twin, by Triton's interpreter on the CPU. `make triton` runs this."""

import os
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from glm_worker.kernels.cuda.experts import fused_experts, place, route
from glm_worker.kernels.cuda.paged_attention import CudaPlan, Tiles, paged_attention, splits_for
from glm_worker.kernels.cuda.rows import HeadWeights, add_norm, rotate_and_store
from glm_worker.kernels.grouped_experts import grouped_experts_plain
from glm_worker.kernels.paged_attention import paged_attention_plain

assert os.environ.get("TRITON_INTERPRET") == "1", "run by make triton"
torch.set_num_threads(1)

# The interpreter multiplies the bit patterns of bf16 (Triton 3.9), so fp16 stands for the types that round: it keeps 11
# bits, and of some ten roundings in a row the sum stays below 16 of its units.
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 8e-3)], ids=str)
BATCHES: dict[str, list[tuple[int, int]]] = {
    "nothing": [],
    "one token": [(1, 1)],
    "decode": [(1, 1), (1, 63), (1, 64), (1, 65), (1, 300)],
    "prompts": [(2, 2), (17, 17), (70, 70)],
    "mixed": [(1, 33), (20, 25), (1, 7), (7, 130), (1, 1)],
}


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@DTYPES
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(("block_size", "num_heads", "num_kv_heads", "head_dim"), [(5, 6, 2, 20), (16, 12, 1, 32)])
def test_attention_equals_its_definition(
    name: str, block_size: int, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    batch = BATCHES[name]
    contexts = np.array([context for _, context in batch], dtype=np.int32)
    lens = np.array([query for query, _ in batch], dtype=np.int32)
    counts = [-(-int(context) // block_size) for context in contexts]
    free = list(range(sum(counts) + 2))
    random.Random(0).shuffle(free)
    tables = [[free.pop() for _ in range(count)] for count in counts]
    k, v = (noise(sum(counts) + 2, block_size, num_kv_heads, head_dim, dtype=dtype, seed=s) for s in (1, 2))
    q = noise(int(lens.sum()), num_heads, head_dim, dtype=dtype)
    cu_query_lens = [int(lens[:i].sum()) for i in range(len(batch) + 1)]
    expected = paged_attention_plain(q, k, v, cu_query_lens, contexts.tolist(), tables)
    used = {slot for t, n in zip(tables, contexts, strict=True) for slot in slots_of(t, int(n), block_size)}
    unused = [slot for slot in range(k.shape[0] * block_size) if slot not in used]
    for cache in (k, v):
        cache.flatten(0, 1)[unused] = float("nan")
    most = max(counts, default=0) + 1
    tables_BM = torch.tensor([t + [10**8] * (most - len(t)) for t in tables], dtype=torch.int32).view(-1, most)
    on_device = torch.tensor(cu_query_lens, dtype=torch.int32), torch.from_numpy(contexts), tables_BM
    plan = CudaPlan.of_step(lens, *on_device, num_heads // num_kv_heads, num_kv_heads)
    for num_splits in (1, 4):
        tiles = tuple(Tiles(t.seq_first_N2, t.num_tokens, num_splits) for t in plan.tiles)
        found = paged_attention(q, k, v, CudaPlan(tiles, *on_device))
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@DTYPES
def test_a_cache_may_have_another_type_than_the_weights(dtype: torch.dtype, tolerance: float) -> None:
    kv_dtype = torch.float16 if dtype == torch.float32 else torch.float32
    k, v = (noise(4, 16, 2, 16, dtype=kv_dtype, seed=s) for s in (1, 2))
    q = noise(3, 4, 16, dtype=dtype)
    ints = [torch.tensor(x, dtype=torch.int32) for x in ([0, 1, 2, 3], [40, 7, 20], [[2, 1, 3]] * 3)]
    found = paged_attention(q, k, v, CudaPlan.of_decode(ints[0], ints[1], ints[2], num_kv_heads=2))
    wanted = paged_attention_plain(q, k.to(dtype), v.to(dtype), [0, 1, 2, 3], [40, 7, 20], [[2, 1, 3]] * 3)
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def slots_of(table: list[int], context: int, block_size: int) -> list[int]:
    return [table[position // block_size] * block_size + position % block_size for position in range(context)]


def test_a_sequence_that_fills_up_a_graph_gives_zeros_and_disturbs_nobody() -> None:
    k, v = (noise(4, 16, 2, 16, seed=s) for s in (1, 2))
    q = noise(3, 4, 16)
    ints = [torch.tensor(x, dtype=torch.int32) for x in ([0, 1, 2, 3], [40, 0, 0], [[2, 1, 3]] * 3)]
    found = paged_attention(q, k, v, CudaPlan.of_decode(ints[0], ints[1], ints[2], num_kv_heads=2))
    expected = paged_attention_plain(q[:1], k, v, [0, 1], [40], [[2, 1, 3]])
    torch.testing.assert_close(found[:1], expected, atol=1e-5, rtol=1e-5)
    assert not found[1:].any()


@pytest.mark.parametrize(("num_programs", "splits"), [(0, 64), (1, 64), (8, 32), (64, 4), (200, 1), (2000, 1)])
def test_a_context_is_split_until_a_gpu_has_enough_to_do(num_programs: int, splits: int) -> None:
    assert splits_for(num_programs) == splits


@DTYPES
@pytest.mark.parametrize(("num_tokens", "size"), [(0, 16), (1, 20), (5, 64)])
def test_add_and_norm_are_those_of_the_layers(num_tokens: int, size: int, dtype: torch.dtype, tolerance: float) -> None:
    x, delta, weight = (noise(*s, dtype=dtype, seed=n) for n, s in enumerate([(num_tokens, size)] * 2 + [(size,)]))
    total = x + delta
    wide = total.float()
    expected = weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(dtype)
    found = add_norm(x, delta, weight, 1e-5)
    torch.testing.assert_close(x, total)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(add_norm(x, None, weight, 1e-5), expected, atol=tolerance, rtol=tolerance)


@DTYPES
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_norm", [False, True])
def test_heads_are_turned_and_stored_as_by_the_layers(
    has_bias: bool, has_norm: bool, dtype: torch.dtype, tolerance: float
) -> None:
    num_heads, num_kv_heads, head_dim, half, num_tokens = 6, 2, 20, 5, 4
    qkv = noise(num_tokens, (num_heads + 2 * num_kv_heads) * head_dim, dtype=dtype)
    bias = noise(qkv.shape[1], dtype=dtype, seed=3) if has_bias else None
    norms = [noise(head_dim, dtype=dtype, seed=s) if has_norm else None for s in (4, 5)]
    angles = torch.arange(50)[:, None] * 0.3 ** torch.arange(half)
    positions, slots = torch.tensor([7, 0, 49, 3]), torch.tensor([5, 9, -1, 0])
    k_cache, v_cache = torch.zeros(3, 4, num_kv_heads, head_dim, dtype=dtype), torch.zeros(3, 4, 2, 20, dtype=dtype)
    q = rotate_and_store(
        *(qkv, HeadWeights(bias, norms[0], norms[1], 1e-5), angles.cos(), angles.sin(), positions, slots),
        *(k_cache, v_cache),
    )
    heads = qkv.float() + (0.0 if bias is None else bias.float())
    parts = torch.split(heads.view(num_tokens, -1, head_dim), [num_heads, num_kv_heads, num_kv_heads], dim=1)
    expected = []
    for part, norm in zip(parts[:2], norms, strict=True):
        if norm is not None:
            part = part * torch.rsqrt(part.pow(2).mean(-1, keepdim=True) + 1e-5) * norm.float()
        cosine, sine = (f(angles[positions])[:, None].float() for f in (torch.cos, torch.sin))
        first, second, rest = torch.split(part, [half, half, head_dim - 2 * half], dim=-1)
        expected.append(torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1))
    stored = slots >= 0
    torch.testing.assert_close(q.float(), expected[0], atol=tolerance, rtol=tolerance)
    for cache, want in ((k_cache, expected[1]), (v_cache, parts[2])):
        got = cache.flatten(0, 1)
        torch.testing.assert_close(got[slots[stored]].float(), want[stored], atol=tolerance, rtol=tolerance)
        assert got.flatten(1).any(dim=-1).nonzero().flatten().tolist() == sorted(slots[stored].tolist())


@pytest.mark.parametrize("is_normalized", [False, True])
@pytest.mark.parametrize(("num_tokens", "num_experts", "num_chosen"), [(0, 4, 2), (1, 5, 3), (7, 16, 4), (3, 8, 8)])
def test_the_router_chooses_as_the_layer_does(
    num_tokens: int, num_experts: int, num_chosen: int, is_normalized: bool
) -> None:
    logits, bias = noise(num_tokens, num_experts), noise(num_experts, seed=1)
    scores = logits.sigmoid()
    expected_ids = torch.topk(scores + bias, num_chosen, dim=-1).indices
    expected = scores.gather(1, expected_ids)
    if is_normalized:
        expected = expected / (expected.sum(-1, keepdim=True) + 1e-20)
    weights, ids = route(logits, bias, num_chosen, is_normalized=is_normalized, scale=1.5)
    assert torch.equal(ids.long(), expected_ids)
    torch.testing.assert_close(weights, expected * 1.5, atol=1e-6, rtol=1e-6)


def test_of_experts_that_are_worth_the_same_the_lower_is_chosen() -> None:
    _, ids = route(torch.zeros(2, 6), torch.zeros(6), 3, is_normalized=True, scale=1.0)
    assert ids.tolist() == [[0, 1, 2]] * 2


def test_a_broken_token_chooses_experts_that_exist_and_stays_broken() -> None:
    weights, ids = route(torch.full((1, 6), float("nan")), torch.zeros(6), 3, is_normalized=True, scale=1.0)
    assert ids.tolist() == [[0, 1, 2]]
    assert weights.isnan().all()


def test_copies_are_placed_by_expert_and_in_their_order() -> None:
    ids = torch.tensor([[3, 1], [1, 2], [9, 1]], dtype=torch.int32)
    places = place(ids, range(1, 4))
    rows = places.copy_R.view(-1, 16)
    assert places.expert_P[:3].tolist() == [0, 1, 2]
    assert (places.expert_P[3:] == -1).all()
    assert [[copy for copy in row.tolist() if copy < 6] for row in rows[:3]] == [[1, 2, 5], [3], [0]]
    assert places.is_local_C.tolist() == [1, 1, 1, 1, 0, 1]


@DTYPES
@pytest.mark.parametrize(("num_tokens", "num_chosen", "first"), [(0, 2, 0), (1, 2, 0), (40, 3, 0), (9, 4, 2)])
def test_experts_equal_a_loop_over_them(
    num_tokens: int, num_chosen: int, first: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Experts 2 to 5 are here where first is 2: those of other ranks count as 0."""
    num_local, size, width = 4, 72, 24
    x = noise(num_tokens, size, dtype=dtype)
    gate_up, down = (
        noise(num_local, *s, dtype=dtype, seed=n) / 8 for n, s in ((1, (2 * width, size)), (2, (size, width)))
    )
    generator = torch.Generator().manual_seed(3)
    total = num_local + 2 * first
    ids = torch.stack(
        [torch.randperm(total, generator=generator)[:num_chosen] for _ in range(num_tokens)]
        or [torch.zeros(num_chosen)]
    )[:num_tokens]
    weights = noise(num_tokens, num_chosen, seed=4).abs()
    found = fused_experts(x, ids.to(torch.int32), weights, gate_up, down, first)
    expected = torch.zeros(num_tokens, size)
    for token in range(num_tokens):
        for expert, weight in zip(ids[token].tolist(), weights[token], strict=True):
            if first <= expert < first + num_local:
                ends = torch.tensor([int(i >= expert - first) for i in range(num_local)])
                said = grouped_experts_plain(x[token : token + 1].float(), ends, gate_up.float(), down.float())
                expected[token] += weight * said[0]
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
