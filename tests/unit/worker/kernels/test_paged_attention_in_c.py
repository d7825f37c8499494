"""Paged attention in C against its plain twin, and its promise: a query's bits are those of the query and its context.

Slots that no sequence has reached hold NaN in every test, and tables point outside of the cache past a context: what is
read though nobody should read it shows.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_worker.kernels.cpu.attention import SPLIT, Sequences, paged_attention
from glm_worker.kernels.cpu.library import Library, Team, available_isas, load
from glm_worker.kernels.paged_attention import paged_attention_plain
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

TEAMS = {num_threads: Team(num_threads) for num_threads in (1, 2, 3, 4)}
OUTSIDE = 10**9  # a block that no cache has

# Query tokens and context of each sequence
BATCHES = {
    "nothing": [],
    "one token": [(1, 1)],
    "decode around a split": [(1, SPLIT - 1), (1, SPLIT), (1, SPLIT + 1), (1, 2 * SPLIT), (1, 7)],
    "a long decode": [(1, 5000), (1, 3)],
    "whole prompts": [(2, 2), (17, 17), (300, 300)],
    "chunks around a split": [(2, SPLIT + 1), (40, SPLIT + 20), (5, 2 * SPLIT)],
    "mixed": [(1, 33), (20, 20), (0, 5), (7, 650), (1, 1), (1, 1025)],
}
HEADS = [(4, 4, 16), (8, 2, 20), (3, 1, 80), (12, 1, 128), (100, 1, 64), (2, 1, 256)]


@pytest.fixture(scope="module", autouse=True)
def _close_teams() -> Iterator[None]:
    yield
    for team in TEAMS.values():
        team.close()


@dataclass(frozen=True)
class Cache:
    """Keys and values of sequences, scattered over blocks."""

    k_PSVD: Tensor
    v_PSVD: Tensor
    tables: list[list[int]]

    @classmethod
    def of(cls, k: list[Tensor], v: list[Tensor], block_size: int, seed: int = 0) -> "Cache":
        """k and v: (context, V, D) of each sequence."""
        rng = random.Random(seed)
        num_blocks = [-(-len(x) // block_size) for x in k]
        free = list(range(sum(num_blocks) + 3))
        rng.shuffle(free)
        tables = [[free.pop() for _ in range(n)] for n in num_blocks]
        caches = []
        for parts in (k, v):
            cache = parts[0].new_full((sum(num_blocks) + 3, block_size, *parts[0].shape[1:]), float("nan"))
            for part, table in zip(parts, tables, strict=True):
                for start in range(0, len(part), block_size):
                    rows = part[start : start + block_size]
                    cache[table[start // block_size], : len(rows)] = rows
            caches.append(cache)
        return cls(caches[0], caches[1], tables)

    def attend(
        self, q: list[Tensor], contexts: list[int], num_threads: int = 1, library: Library | None = None
    ) -> list[Tensor]:
        """Return the result of each sequence's queries."""
        lens = [len(x) for x in q]
        longest = max((len(table) for table in self.tables), default=0) + 2
        padded = [table + [OUTSIDE] * (longest - len(table)) for table in self.tables]
        cu_query_lens = torch.tensor([0, *lens]).cumsum(0).to(torch.int32)
        sequences = Sequences(
            cu_query_lens,
            torch.tensor(contexts, dtype=torch.int32),
            torch.tensor(padded, dtype=torch.int32).view(len(q), longest),
        )
        out = paged_attention(TEAMS[num_threads], torch.cat(q), self.k_PSVD, self.v_PSVD, sequences, library)
        return list(torch.split(out, lens))


def some_heads(contexts: list[int], num_heads: int, head_dim: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, num_heads, head_dim, generator=generator).to(dtype) for n in contexts]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_attention_equals_its_definition(
    name: str, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, isa: str
) -> None:
    """The twin sums in fp32 as well, with bf16 KV too: both read the same values, and only the order differs."""
    batch = BATCHES[name]
    contexts = [context for _, context in batch]
    k = some_heads(contexts or [0], num_kv_heads, head_dim, dtype, seed=1)
    v = some_heads(contexts or [0], num_kv_heads, head_dim, dtype, seed=2)
    q = some_heads([num for num, _ in batch], num_heads, head_dim, torch.float32) or [torch.empty(0, 1, 1)]
    block_size, num_threads = {"nothing": (16, 4), "mixed": (5, 3), "one token": (1, 2)}.get(name, (16, 1))
    if not batch:
        ints = [torch.zeros(shape, dtype=torch.int32) for shape in ((1,), (0,), (0, 0))]
        nothing = Sequences(ints[0], ints[1], ints[2])
        caches = [torch.zeros(1, 16, num_kv_heads, head_dim, dtype=dtype)] * 2
        out = paged_attention(TEAMS[4], torch.empty(0, num_heads, head_dim), caches[0], caches[1], nothing, load(isa))
        assert out.shape == (0, num_heads, head_dim)
        return
    cache = Cache.of(k, v, block_size)
    found = torch.cat(cache.attend(q, contexts, num_threads, load(isa)))
    cu_query_lens = [sum(num for num, _ in batch[:i]) for i in range(len(batch) + 1)]
    caches = [x.nan_to_num() for x in (cache.k_PSVD, cache.v_PSVD)]
    expected = paged_attention_plain(torch.cat(q), caches[0], caches[1], cu_query_lens, contexts, cache.tables)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """Contexts of sequences, and for each where its last queries are cut into chunks."""
    lengths = st.one_of(st.integers(1, 40), st.integers(SPLIT - 3, SPLIT + 3), st.integers(500, 800))
    contexts = draw(st.lists(lengths, min_size=1, max_size=4))
    cuts = [draw(st.lists(st.integers(0, min(context, 60)), max_size=5).map(sorted)) for context in contexts]
    return contexts, cuts


@settings(max_examples=40, deadline=None)
@given(
    schedule=schedules(),
    heads=st.sampled_from([(2, 2, 16), (6, 2, 20), (12, 1, 64), (5, 1, 80)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    isa=st.sampled_from(available_isas()),
    num_threads=st.sampled_from([1, 2, 3, 4]),
    block_sizes=st.tuples(st.sampled_from([1, 7, 16, 256]), st.sampled_from([4, 16])),
)
def test_the_bits_of_a_query_depend_on_it_and_its_context_alone(
    schedule: tuple[list[int], list[list[int]]],
    heads: tuple[int, int, int],
    dtype: torch.dtype,
    isa: str,
    num_threads: int,
    block_sizes: tuple[int, int],
) -> None:
    """Once whole prompts together; then any chunks, one after the other, at other places and by other threads."""
    (contexts, cuts), (num_heads, num_kv_heads, head_dim) = schedule, heads
    k = some_heads(contexts, num_kv_heads, head_dim, dtype, seed=1)
    v = some_heads(contexts, num_kv_heads, head_dim, dtype, seed=2)
    q = some_heads([min(context, 60) for context in contexts], num_heads, head_dim, torch.float32)
    together = Cache.of(k, v, block_sizes[0]).attend(q, contexts, num_threads, load(isa))
    for seq, context in enumerate(contexts):
        bounds = [0, *cuts[seq], len(q[seq])]
        for start, end in pairwise(bounds):
            seen = context - len(q[seq]) + end
            if start == end or not seen:
                continue
            alone = Cache.of([k[seq][:seen]], [v[seq][:seen]], block_sizes[1], seed=end)
            (out,) = alone.attend([q[seq][start:end]], [seen], 1, load(isa))
            assert torch.equal(out, together[seq][start:end])


@pytest.mark.parametrize("num_threads", [2, 3, 4])
def test_a_context_split_between_threads_gives_the_bits_of_one_thread(num_threads: int) -> None:
    contexts = [9000, 30]
    k, v = (some_heads(contexts, 1, 64, torch.float32, seed) for seed in (1, 2))
    q, cache = some_heads([3, 1], 4, 64, torch.float32), Cache.of(k, v, 16)
    alone, shared = (torch.cat(cache.attend(q, contexts, n)) for n in (1, num_threads))
    assert torch.equal(alone, shared)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_a_later_position_holds_reaches_no_earlier_query(poison: float) -> None:
    contexts = [300]
    k, v = (some_heads(contexts, 2, 32, torch.float32, seed) for seed in (1, 2))
    q = some_heads([50], 6, 32, torch.float32)
    (clean,) = Cache.of(k, v, 16).attend(q, contexts)
    k[0][280], v[0][281] = poison, poison
    (poisoned,) = Cache.of(k, v, 16).attend(q, contexts)
    assert torch.equal(poisoned[:30], clean[:30])
    assert poisoned[31:].isnan().any(dim=-1).all()


def test_a_broken_query_is_broken_alone() -> None:
    contexts = [300, 20]
    k, v = (some_heads(contexts, 2, 32, torch.float32, seed) for seed in (1, 2))
    q = some_heads([1, 1], 6, 32, torch.float32)
    whole = Cache.of(k, v, 16).attend(q, contexts)
    q[0][:] = float("nan")
    broken = Cache.of(k, v, 16).attend(q, contexts)
    assert broken[0].isnan().all()
    assert torch.equal(broken[1], whole[1])


def good_arguments() -> tuple[Tensor, Tensor, Tensor, Sequences]:
    ints = [torch.tensor(x, dtype=torch.int32) for x in ([0, 2, 3], [4, 9], [[0, 0], [1, 2]])]
    return (
        torch.zeros(3, 4, 16),
        torch.zeros(3, 8, 2, 16),
        torch.zeros(3, 8, 2, 16),
        Sequences(ints[0], ints[1], ints[2]),
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"q": torch.zeros(3, 5, 16)}, "5 query heads: expected a multiple of the 2 KV heads"),
        (
            {n: torch.zeros(3, 2 if n == "q" else 8, 2, 257)[:, 0 if n == "q" else slice(None)] for n in "qkv"},
            "1 to 256",
        ),
        ({"q": torch.zeros(3, 4, 16).bfloat16()}, "q is torch.bfloat16 on cpu: expected torch.float32"),
        ({"q": torch.zeros(3, 16, 4).transpose(1, 2)}, "q has strides"),
        ({"q": torch.zeros(2, 4, 16)}, "from 0 to 3: expected 0 to 2 tokens"),
        ({"k": torch.zeros(3, 8, 2, 16).half()}, "k is torch.float16"),
        ({"v": torch.zeros(3, 8, 2, 8)}, "v has shape"),
        ({"context_lens_B": torch.tensor([4, 9])}, "context_lens is torch.int64"),
        ({"context_lens_B": torch.tensor([1, 9], dtype=torch.int32)}, "2 query tokens with a context of 1"),
        ({"context_lens_B": torch.tensor([4, 17], dtype=torch.int32)}, "3 blocks are needed"),
        ({"block_tables_BM": torch.tensor([[3, 0], [1, 2]], dtype=torch.int32)}, "allowed are 0 to 2"),
    ],
    ids=str,
)
def test_what_the_kernel_would_read_beyond_its_bounds_is_refused(change: dict[str, Tensor], complaint: str) -> None:
    q, k, v, sequences = good_arguments()
    paged_attention(TEAMS[1], q, k, v, sequences)
    own = {name: change[name] for name in change if len(name) > 1}
    with pytest.raises(ValueError, match=complaint):
        paged_attention(TEAMS[1], change.get("q", q), change.get("k", k), change.get("v", v), replace(sequences, **own))
