"""A runner over a small model: what a step that broke leaves to others, and what the watchdog sees of a step."""

import math
from pathlib import Path

import pytest
import torch

from glm_worker.engine.runner import Runner
from glm_worker.heartbeat import RankSlot, create_slots
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, write_checkpoint

hold_torch_to_one_thread()

CPU = torch.device("cpu")
CONFIG = ModelConfig.model_validate(a_config(attention_bias=True, use_qk_norm=True))
POISON = 7  # the token whose embedding is made of NaN where a test says so
BLOCK_SIZE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), a_config(attention_bias=True, use_qk_norm=True))


def a_model(folder: Path, *, fixed_order: bool) -> GlmMoe:
    return load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.float32, fixed_order=fixed_order)


def a_runner(model: GlmMoe, slot: RankSlot | None = None) -> Runner:
    cache = KVCache.allocate(CONFIG, Mesh(), 16, BLOCK_SIZE, torch.float32, CPU)
    return Runner(model, cache, Communicator.single(), CPU, slot)


def a_run(name: str, start: int, token_ids: list[int], table: list[int]) -> ScheduledSequence:
    return ScheduledSequence(name, start, token_ids, table, True, SamplingParams())


def a_step(*sequences: ScheduledSequence, zeroed: tuple[int, ...] = ()) -> ScheduledBatch:
    return ScheduledBatch(1, sequences, (), (), zeroed)


@pytest.mark.parametrize("fixed_order", [False, True])
def test_a_sequence_that_breaks_reaches_nobody_beside_it(folder: Path, fixed_order: bool) -> None:
    """It has block 0, by which the tables of others are filled up, and goes on for some steps of prefill and decode."""
    model = a_model(folder, fixed_order=fixed_order)
    tokens = [(3 * n) % 5 + 20 for n in range(40)]
    tables = [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9]]
    steps = [[(0, 6), (0, 2), (0, 5)], [(6, 7), (2, 3), (5, 6)], [(7, 9), (3, 4), (6, 18)], [(9, 10), (4, 5), (18, 19)]]

    def run(first: int) -> list[torch.Tensor]:
        runner = a_runner(model)
        rows = []
        for parts in steps:
            sequences = [
                a_run(f"s{n}", begin, [first if n == 0 else tokens[i] for i in range(begin, end)], tables[n])
                for n, (begin, end) in enumerate(parts)
            ]
            rows.append(runner.run(a_step(*sequences)))
        return rows

    whole = run(POISON)
    with torch.inference_mode():
        model.embed_tokens.weight[POISON] = math.nan
    for expected, found in zip(whole, run(POISON), strict=True):
        assert found[0].isnan().any()
        if fixed_order:
            assert torch.equal(found[1:], expected[1:])
        else:  # what the broken one is routed to has other rows beside it, and sums of few rows another order
            torch.testing.assert_close(found[1:], expected[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fixed_order", [False, True])
def test_blocks_that_a_broken_sequence_has_left_are_zeroed_before_the_next_owner_computes(
    folder: Path, fixed_order: bool
) -> None:
    model = a_model(folder, fixed_order=fixed_order)
    expected = a_runner(model).run(a_step(a_run("b", 0, [1, 2, 3], [1])))
    runner = a_runner(model)
    with torch.inference_mode():
        model.embed_tokens.weight[POISON] = math.nan
    runner.run(a_step(a_run("a", 0, [POISON] * 8, [0, 1])))
    found = runner.run(a_step(a_run("b", 0, [1, 2, 3], [1]), zeroed=(1, 0)))
    assert torch.equal(found, expected)
    for layer in runner._kv_cache.layers:
        assert layer.k.isfinite().all()
        assert layer.v.isfinite().all()


@pytest.mark.parametrize("kernels", ["torch", "torch in a fixed order", "C"])
def test_a_cache_of_bf16_beside_weights_of_fp32_gives_the_logits_to_the_precision_of_bf16(
    folder: Path, kernels: str
) -> None:
    """bf16 keeps 8 bits; keys and values alone are rounded, so little of it reaches the logits."""
    model = a_model(folder, fixed_order=kernels != "torch")
    if kernels == "C":
        model.use_kernels(1)
        assert model.kernels != "torch"
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        cache = KVCache.allocate(CONFIG, Mesh(), 16, BLOCK_SIZE, dtype, CPU)
        runner = Runner(model, cache, Communicator.single(), CPU)
        table = list(range(10))
        runner.run(a_step(a_run("a", 0, list(range(30)), table)))
        rows.append(runner.run(a_step(a_run("a", 30, [30], table), a_run("b", 0, [3, 4], [12]))))
        assert cache.layers[0].k.dtype == dtype
    error = (rows[1] - rows[0]).norm(dim=1) / rows[0].norm(dim=1)
    assert 0 < error.max() < 0.03


def test_steps_are_waited_for_in_the_order_of_their_launch(folder: Path) -> None:
    model = a_model(folder, fixed_order=False)
    plans = [a_step(a_run("a", 0, [1, 2], [1])), a_step(a_run("b", 0, [3], [2]), a_run("c", 0, [4, 5], [3]))]
    expected = [a_runner(model).run(plan) for plan in plans]
    runner = a_runner(model)
    for plan in plans:
        runner.launch(plan)
    assert all(torch.equal(runner.wait(), logits) for logits in expected)


def test_the_slot_says_which_step_runs_and_that_it_moved_on(folder: Path, tmp_path: Path) -> None:
    create_slots(tmp_path / "slots", 1)
    slot = RankSlot.open(tmp_path / "slots", 0)
    runner = a_runner(a_model(folder, fixed_order=False), slot)
    before = slot.snapshot()
    runner.launch(ScheduledBatch(5, (a_run("a", 0, [1, 2], [1]),), (), ()))
    launched = slot.snapshot()
    runner.wait()
    waited = slot.snapshot()
    assert (before.step, launched.step, waited.step) == (0, 5, 5)
    assert before.changed_ns < launched.changed_ns < waited.changed_ns
    assert not waited.in_collective
    slot.close()
