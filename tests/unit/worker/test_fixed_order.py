"""A sequence gets the same bits alone and beside others, in any chunks, as prefill and as decode, on this CPU.

The engine claims it only where its probe has seen it. If that says no here, another library or CPU is in use than the
layers were made for, and these tests say so.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glm_worker.engine.probe import is_deterministic
from glm_worker.engine.runner import Runner
from glm_worker.kernels.fixed_attention import FixedPlan, fixed_attention, fixed_length
from glm_worker.kernels.fixed_order import fixed_sigmoid, whole_rows
from glm_worker.kernels.paged_attention import paged_attention_plain
from glm_worker.model.config import ModelConfig
from glm_worker.model.forward_batch import padded_tables
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.dispatch import LocalDispatcher
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, copy_of_nano, write_checkpoint

hold_torch_to_one_thread()

CPU = torch.device("cpu")
LENGTHS = (1, 2, 5, 16, 33, 150, 200, 395, 520)
MODELS = {
    "nano": None,
    "many experts": a_config(n_routed_experts=10, num_experts_per_tok=4, vocab_size=133, max_position_embeddings=600),
    "one kv head": a_config(
        num_attention_heads=6,
        num_key_value_heads=1,
        intermediate_size=77,
        use_qk_norm=True,
        max_position_embeddings=600,
    ),
}


def a_model(folder: Path, name: str, *, fixed_order: bool = True) -> GlmMoe:
    config = MODELS[name]
    if config is None:
        copy_of_nano(folder)
    else:
        write_checkpoint(folder, config)
    return load_model(
        folder,
        ModelConfig.read(folder),
        Mesh(),
        Communicator.single(),
        CPU,
        torch.float32,
        fixed_order=fixed_order,
    )


class Steps:
    """Sequences of random tokens, each with blocks of its own, computed in steps that the test chooses."""

    def __init__(self, model: GlmMoe, block_size: int = 16, lengths: Sequence[int] = LENGTHS) -> None:
        rng = random.Random(0)
        self.tokens = [[rng.randrange(model.config.vocab_size) for _ in range(length)] for length in lengths]
        num_blocks = [-(-length // block_size) for length in lengths]
        blocks = list(range(sum(num_blocks)))
        rng.shuffle(blocks)
        self.tables = [[blocks.pop() for _ in range(n)] for n in num_blocks]
        kv_cache = KVCache.allocate(model.config, Mesh(), sum(num_blocks), block_size, torch.float32, CPU)
        self.runner = Runner(model, kv_cache, Communicator.single(), CPU)

    def run(self, *parts: tuple[int, int, int]) -> Tensor:
        """Compute positions start to end of each sequence; return the logits of its last."""
        sequences = tuple(
            ScheduledSequence(
                f"s{number}", start, self.tokens[number][start:end], self.tables[number], True, SamplingParams()
            )
            for number, start, end in parts
        )
        return self.runner.run(ScheduledBatch(1, sequences, (), ()))

    def whole(self, number: int) -> tuple[int, int, int]:
        return number, 0, len(self.tokens[number])

    def last(self, number: int) -> tuple[int, int, int]:
        end = len(self.tokens[number])
        return number, end - 1, end


@pytest.mark.parametrize(("name", "block_size"), [*((name, 5) for name in MODELS), ("nano", 16)])
def test_a_sequence_gets_the_same_bits_however_it_is_divided_into_steps(
    tmp_path: Path, name: str, block_size: int
) -> None:
    steps = Steps(a_model(tmp_path, name), block_size)
    every = range(len(LENGTHS))
    alone = torch.cat([steps.run(steps.whole(number)) for number in every])
    assert torch.equal(steps.run(*(steps.whole(number) for number in every)), alone)
    assert torch.equal(steps.run(*(steps.last(number) for number in every)), alone)
    for size in (1, 2, 3, 7):
        for begin in range(0, len(LENGTHS), size):
            some = list(every)[begin : begin + size]
            assert torch.equal(steps.run(*(steps.last(number) for number in some)), alone[begin : begin + size])
    for chunk in (3, 50, 257):
        for number in every:
            end = len(steps.tokens[number])
            for start in range(0, end, chunk):
                beside = [steps.last(other) for other in every if other != number][: start % 4]
                logits = steps.run((number, start, min(start + chunk, end)), *beside)
            assert torch.equal(logits[0], alone[number])


def test_keys_and_values_that_decode_steps_made_serve_as_those_of_a_prefill(tmp_path: Path) -> None:
    """At every position of an answer, across all the lengths at which attention changes its sizes."""
    model = a_model(tmp_path, "nano")
    by_decode, by_prefill = Steps(model, lengths=[420]), Steps(model, lengths=[420])
    for position in range(420):
        logits = by_decode.run((0, position, position + 1))
        if position % 13 == 0 or position > 380:
            assert torch.equal(logits, by_prefill.run((0, 0, position + 1)))


def test_without_it_the_bits_differ(tmp_path: Path) -> None:
    """Or the tests above would compare what is equal anyway."""
    steps = Steps(a_model(tmp_path, "nano", fixed_order=False))
    alone = steps.run(steps.whole(4))
    assert not torch.equal(steps.run(steps.last(4)), alone)
    torch.testing.assert_close(steps.run(steps.last(4)), alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("fixed_order", [True, False])
@pytest.mark.parametrize("num_blocks", [1, 60])
def test_the_probe_sees_which_it_is(tmp_path: Path, fixed_order: bool, num_blocks: int) -> None:
    model = a_model(tmp_path, "many experts", fixed_order=fixed_order)
    kv_cache = KVCache.allocate(model.config, Mesh(), num_blocks, 16, torch.float32, CPU)
    runner = Runner(model, kv_cache, Communicator.single(), CPU)
    limits = SchedulerLimits(600, 16, 4, num_blocks, 16)
    assert is_deterministic(runner, limits, model.config.vocab_size) is fixed_order
    assert runner.expert_tokens_by_rank() == [0]


BATCHES = {
    "nothing": [],
    "decode of many lengths": [(1, 1), (1, 16), (1, 17), (1, 192), (1, 193), (1, 400), (1, 520)],
    "whole prompts": [(2, 2), (17, 17), (300, 300)],
    "mixed": [(1, 33), (20, 20), (1, 7), (7, 250), (1, 1), (129, 600)],
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("block_size", [1, 5, 16, 300])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (8, 2), (5, 1)])
def test_attention_in_a_fixed_order_equals_its_definition(
    name: str, block_size: int, num_heads: int, num_kv_heads: int
) -> None:
    batch, generator = BATCHES[name], torch.Generator().manual_seed(0)
    num_blocks = [-(-context // block_size) for _, context in batch]
    blocks = iter(torch.randperm(sum(num_blocks) + 1, generator=generator).tolist())
    tables = [[next(blocks) for _ in range(n)] for n in num_blocks]
    shape = (sum(num_blocks) + 1, block_size, num_kv_heads, 16)
    k, v = (torch.randn(shape, generator=generator) for _ in range(2))
    cu_query_lens = [sum(q for q, _ in batch[:i]) for i in range(len(batch) + 1)]
    num_tokens = cu_query_lens[-1]
    q = torch.randn(whole_rows(num_tokens), num_heads, 16, generator=generator)
    contexts = [context for _, context in batch]
    lens = np.array(cu_query_lens, dtype=np.int32), np.array(contexts, dtype=np.int32)
    plan = FixedPlan.build(*lens, padded_tables(tables), block_size, torch.float32)
    found = fixed_attention(q, k, v, plan)
    expected = paged_attention_plain(q[:num_tokens], k, v, cu_query_lens, contexts, tables)
    torch.testing.assert_close(found[:num_tokens], expected, atol=2e-6, rtol=2e-6)
    assert not found[num_tokens:].any()


def test_lengths_are_whole_vectors_and_never_between_one_piece_and_two() -> None:
    lengths = [fixed_length(n) for n in range(1, 2000)]
    assert all(n <= length and length % 16 == 0 for n, length in enumerate(lengths, 1))
    assert not any(192 < length % 512 < 384 for length in lengths)
    assert (fixed_length(1), fixed_length(192), fixed_length(193), fixed_length(385)) == (16, 192, 384, 400)


@pytest.mark.parametrize("num_experts", [3, 8, 131])
def test_a_score_of_a_token_does_not_depend_on_the_others(num_experts: int) -> None:
    logits = torch.randn(64, num_experts, generator=torch.Generator().manual_seed(0)) * 5
    scores = fixed_sigmoid(logits)
    torch.testing.assert_close(scores, logits.sigmoid())
    for num_tokens in range(4, 64, 4):
        assert torch.equal(fixed_sigmoid(logits[-num_tokens:].clone()), scores[-num_tokens:])


def test_the_rows_of_every_expert_are_filled_up_and_mix_to_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    for num_tokens in (1, 3, 8, 50):
        x_TD = torch.randn(num_tokens, 16, generator=generator)
        ids_TK = torch.rand(num_tokens, 8, generator=generator).argsort(-1)[:, :3]
        weights_TK = torch.rand(num_tokens, 3, generator=generator)
        plain, filled = (LocalDispatcher(range(8), fixed_order=fixed) for fixed in (False, True))
        dispatched = filled.dispatch(x_TD, ids_TK, weights_TK)
        assert not (dispatched.ends_L % 4).any()
        assert dispatched.x_RD.shape[0] == num_tokens * 3 + 3 * min(8, num_tokens * 3)
        expected = plain.combine(
            plain.dispatch(x_TD, ids_TK, weights_TK).x_RD, plain.dispatch(x_TD, ids_TK, weights_TK)
        )
        assert torch.equal(filled.combine(dispatched.x_RD, dispatched), expected)
