"""GLM-4.5 and GLM-4.5-Air at their published widths on one GPU, random weights, as deep as shows every kind of layer.

The truth is the oracle in fp32. In bf16 nobody gets it exactly: a choice between two experts that score alike falls
either way. So the worker is held to be no further from the truth than the oracle's own bf16 result is. In fp32 sums of
up to 12288 products in another order may differ by sqrt(12288) units of rounding (1.2e-7), which is 1.3e-5.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from glm_worker.engine.memory import largest_step, room_on_gpu
from glm_worker.engine.runner import Runner
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from glm_worker.settings import WorkerSettings
from integration.oracle import oracle_logits
from integration.parity import relative_errors, some_prompts
from integration.rank_pool import Rank, run_ranks
from integration.teacher_forcing import Step, mixed_steps, prefill_then_decode, teacher_forced_logits, whole_prompts
from integration.tiny_models import a_config, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="NOT TESTED: no CUDA device here"),
]

# Widths: config.json of the models, as in docs of transformers and in the planner's shapes.py
_BOTH = {
    "vocab_size": 151552,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": True,
    "num_experts_per_tok": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
    "dtype": "bfloat16",
}
MODELS = {
    "GLM-4.5-Air": a_config(
        **_BOTH,
        hidden_size=4096,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        intermediate_size=10944,
        moe_intermediate_size=1408,
        n_routed_experts=128,
        routed_scaling_factor=1.0,
        use_qk_norm=False,
    ),
    "GLM-4.5": a_config(
        **_BOTH,
        hidden_size=5120,
        num_hidden_layers=4,
        first_k_dense_replace=3,
        intermediate_size=12288,
        moe_intermediate_size=1536,
        n_routed_experts=160,
        routed_scaling_factor=2.5,
        use_qk_norm=True,
    ),
}
DIVISIONS: dict[str, Callable[[list[Tensor]], list[Step]]] = {
    "whole prompts": whole_prompts,
    "then decode": lambda prompts: prefill_then_decode(prompts, num_decode=8),
    "mixed steps": lambda prompts: mixed_steps(prompts, seed=0),
}


class Case(NamedTuple):
    folder: Path
    prompts: list[Tensor]
    truth: Tensor  # (all tokens, V) of the oracle in fp32
    oracle_errors: Tensor  # of the oracle's logits in bf16, a token


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, MODELS[request.param], num_shards=4, dtype=torch.bfloat16, device="cuda")
    prompts = some_prompts(ModelConfig.read(folder).vocab_size)
    truth = torch.cat(oracle_logits(folder, prompts, device="cuda"))
    rounded = torch.cat(oracle_logits(folder, prompts, torch.bfloat16, device="cuda"))
    yield Case(folder, prompts, truth, relative_errors(rounded, truth))
    for path in folder.iterdir():  # 10 GB a model
        path.unlink()


def logits_of(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    def on_rank(rank: Rank) -> dict[str, Tensor]:
        model = load_model(case.folder, ModelConfig.read(case.folder), rank.mesh, rank.comm, rank.device, dtype)
        return {
            name: torch.cat(teacher_forced_logits(model, rank.mesh, case.prompts, divide(case.prompts)))
            for name, divide in DIVISIONS.items()
        }

    (found,) = run_ranks(on_rank, 1, device="cuda")
    torch.cuda.empty_cache()  # the next model needs the room
    return found


def test_bf16_is_as_near_to_the_truth_as_the_oracle_is(case: Case) -> None:
    for name, logits in logits_of(case, torch.bfloat16).items():
        errors = relative_errors(logits, case.truth)
        print(f"{name}: median error {errors.median():.4f}, oracle {case.oracle_errors.median():.4f}")
        assert errors.median() < 1.2 * case.oracle_errors.median(), name
        assert errors.quantile(0.9) < 1.2 * case.oracle_errors.quantile(0.9), name


def test_fp32_gives_the_logits_of_the_oracle(case: Case) -> None:
    for name, logits in logits_of(case, torch.float32).items():
        errors, largest = relative_errors(logits, case.truth), (logits - case.truth).abs().max()
        print(f"{name}: largest error of a token {errors.max():.1e}, of a logit {largest:.1e}")
        assert errors.max() < 1.3e-5, name


def test_a_cache_that_fills_the_gpu_leaves_room_for_any_step(case: Case) -> None:
    """Sequences of up to the model's full length, divided so that they are padded most, and the end of a prefill."""
    settings = WorkerSettings(model=str(case.folder), device="cuda")
    config, model_len = ModelConfig.read(case.folder), 131072

    def on_rank(rank: Rank) -> None:
        model = load_model(case.folder, config, rank.mesh, rank.comm, rank.device, torch.bfloat16)
        room = room_on_gpu(model, rank.mesh, rank.comm, settings, model_len, torch.bfloat16, rank.device)
        num_blocks = room // KVCache.bytes_per_block(config, rank.mesh, settings.block_size, torch.bfloat16)
        cache = KVCache.allocate(config, rank.mesh, num_blocks, settings.block_size, torch.bfloat16, rank.device)
        free_bytes, total_bytes = torch.cuda.mem_get_info(rank.device)
        print(f"{room / 2**30:.1f} GiB of cache, {free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB left free")
        runner = Runner(model, cache, rank.comm, rank.device)
        runner.run(largest_step(settings, model_len))
        longest = model_len // settings.block_size
        tables = [list(range(longest))]
        while len(tables) < settings.max_num_seqs and tables[-1][-1] + longest // 2 + 2 < num_blocks:
            first = tables[-1][-1] + 1
            tables.append(list(range(first, first + longest // 2 + 1)))
        decode = [a_sequence(table, len(table) * settings.block_size, 1) for table in tables]
        runner.run(ScheduledBatch(1, tuple(decode), (), ()))
        prefill = a_sequence(tables[0], model_len, settings.max_batch_tokens)
        runner.run(ScheduledBatch(2, (prefill,), (), ()))

    run_ranks(on_rank, 1, device="cuda")
    torch.cuda.empty_cache()


def a_sequence(table: list[int], end: int, num_tokens: int) -> ScheduledSequence:
    return ScheduledSequence(f"at-{table[0]}", end - num_tokens, [0] * num_tokens, table, True, SamplingParams())
