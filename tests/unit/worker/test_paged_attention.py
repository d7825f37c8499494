"""Paged attention against its plain twin: decode, prefill, chunks and mixtures, grouped heads, scattered blocks."""

import random

import numpy as np
import pytest
import torch

from glm_worker.kernels.paged_attention import AttentionPlan, paged_attention, paged_attention_plain
from glm_worker.model.forward_batch import padded_tables
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

CPU = torch.device("cpu")

# Query tokens and context of each sequence
BATCHES = {
    "nothing": [],
    "one decode": [(1, 1)],
    "decode of many lengths": [(1, 1), (1, 2), (1, 16), (1, 17), (1, 300), (1, 40)],
    "whole prompts": [(2, 2), (17, 17), (64, 64)],
    "chunks": [(2, 3), (16, 32), (5, 100)],
    "mixed": [(1, 33), (20, 20), (1, 7), (7, 50), (1, 1)],
}


def a_plan(cu_query_lens: list[int], contexts: list[int], tables: list[list[int]], block_size: int) -> AttentionPlan:
    lens = np.array(cu_query_lens, dtype=np.int32), np.array(contexts, dtype=np.int32)
    return AttentionPlan.build(*lens, padded_tables(tables), block_size, CPU)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("block_size", [1, 5, 16])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (8, 2), (3, 1)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"]
)
def test_attention_equals_its_definition(
    name: str, block_size: int, num_heads: int, num_kv_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    head_dim, batch = 16, BATCHES[name]
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    num_blocks = [-(-context // block_size) for _, context in batch]
    free = list(range(sum(num_blocks) + 3))
    rng.shuffle(free)
    tables = [[free.pop() for _ in range(n)] for n in num_blocks]
    if tables:
        tables[-1].append(free.pop())  # a block that is reserved but not needed yet
    shape = (sum(num_blocks) + 3, block_size, num_kv_heads, head_dim)
    k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    cu_query_lens = [sum(q for q, _ in batch[:i]) for i in range(len(batch) + 1)]
    q = torch.randn(cu_query_lens[-1], num_heads, head_dim, generator=generator).to(dtype)
    contexts = [context for _, context in batch]
    plan = a_plan(cu_query_lens, contexts, tables, block_size)
    found = paged_attention(q, k, v, plan)
    expected = paged_attention_plain(q, k, v, cu_query_lens, contexts, tables)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_long_sequence_does_not_pad_short_ones_to_its_length() -> None:
    contexts = [5, 6, 4000, 7]
    tables = [list(range(-(-n // 16))) for n in contexts]
    plan = a_plan([0, 1, 2, 3, 4], contexts, tables, 16)
    assert sorted(group.block_tables_BM.shape for group in plan.decode) == [(1, 250), (3, 1)]


@pytest.mark.parametrize(
    ("cu_query_lens", "contexts", "tables"),
    [([0, 0], [1], [[0]]), ([0, 2], [1], [[0]]), ([0, 1], [17], [[0]])],
    ids=["no query", "query longer than context", "too few blocks"],
)
def test_a_batch_that_cannot_be_is_a_bug(
    cu_query_lens: list[int], contexts: list[int], tables: list[list[int]]
) -> None:
    with pytest.raises(AssertionError):
        a_plan(cu_query_lens, contexts, tables, 16)
