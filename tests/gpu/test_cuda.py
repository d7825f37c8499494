"""The worker's model on CUDA: kernels against their plain twins, bf16 logits against the oracle, NCCL between GPUs."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from glm_worker.engine.sampling import sample
from glm_worker.errors import ConfigError
from glm_worker.kernels.grouped_experts import grouped_experts, grouped_experts_plain
from glm_worker.kernels.paged_attention import AttentionPlan, paged_attention, paged_attention_plain
from glm_worker.model.config import ModelConfig
from glm_worker.model.forward_batch import padded_tables
from glm_worker.model.glm_moe import build
from glm_worker.parallel.device import rank_device
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import SamplingParams
from integration.oracle import oracle_logits
from integration.parity import Case, Outcome, compare, some_prompts
from integration.rank_pool import CountingWatch, run_ranks
from integration.teacher_forcing import mixed_steps, prefill_then_decode, whole_prompts
from integration.tiny_models import a_config, copy_of_nano, write_checkpoint

NUM_GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(NUM_GPUS == 0, reason="NOT TESTED: no CUDA device here, so nothing of the CUDA path was run"),
]


@pytest.fixture(scope="module", params=["tiny", "glm-nano"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    raw = a_config(use_qk_norm=True, attention_bias=True, routed_scaling_factor=2.5)
    folder = tmp_path_factory.mktemp("model")
    copy_of_nano(folder) if request.param == "glm-nano" else write_checkpoint(folder, raw)
    prompts = some_prompts(ModelConfig.read(folder).vocab_size)
    return Case(folder, prompts, oracle_logits(folder, prompts))


def all_divisions(case: Case) -> list[Callable[..., Outcome]]:
    prompts = case.prompts
    divisions = (whole_prompts(prompts), prefill_then_decode(prompts, num_decode=8), mixed_steps(prompts, seed=0))
    return [partial(compare, steps, case, dtype=torch.bfloat16) for steps in divisions]


def test_one_gpu_gives_the_logits_of_the_oracle_to_the_precision_of_bf16(case: Case) -> None:
    """bf16 keeps 8 bits: each of some 20 roundings in a row moves values by 1/256 or less, at random."""
    for function in all_divisions(case):
        (outcome,) = run_ranks(function, 1, device="cuda")
        assert outcome.typical_error < 0.03


@pytest.mark.skipif(NUM_GPUS < 2, reason=f"NOT TESTED: NCCL needs 2 GPUs, there are {NUM_GPUS}")
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_gpus_give_the_logits_of_the_oracle_to_the_precision_of_bf16(case: Case, tensor_parallel: int) -> None:
    for function in all_divisions(case):
        outcomes = run_ranks(function, 2, tensor_parallel, device="cuda")
        assert all(outcome.typical_error < 0.03 for outcome in outcomes)
        assert len({outcome.digest for outcome in outcomes}) == 1


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (12, 1)])
@pytest.mark.parametrize(
    "batch",
    [[(1, 1)], [(1, 1), (1, 300), (1, 17)], [(2, 2), (64, 64)], [(2, 3), (16, 300)], [(1, 33), (20, 20), (7, 50)]],
    ids=str,
)
def test_attention_equals_its_definition(
    batch: list[tuple[int, int]], num_heads: int, num_kv_heads: int, head_dim: int
) -> None:
    device, generator = torch.device("cuda"), torch.Generator("cuda").manual_seed(0)
    num_blocks = [-(-context // 16) for _, context in batch]
    free = list(range(sum(num_blocks) + 1))
    tables = [[free.pop() for _ in range(n)] for n in num_blocks]
    shape = (sum(num_blocks) + 1, 16, num_kv_heads, head_dim)
    k, v = (torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(2))
    cu_query_lens = [sum(q for q, _ in batch[:i]) for i in range(len(batch) + 1)]
    q = torch.randn(cu_query_lens[-1], num_heads, head_dim, generator=generator, device=device).bfloat16()
    contexts = [context for _, context in batch]
    lens = np.array(cu_query_lens, dtype=np.int32), np.array(contexts, dtype=np.int32)
    found = paged_attention(q, k, v, AttentionPlan.build(*lens, padded_tables(tables), 16, device))
    expected = paged_attention_plain(q, k, v, cu_query_lens, contexts, tables)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("counts", [[0, 0], [1], [3, 0, 0, 40], [64, 1, 0, 7]], ids=str)
def test_grouped_experts_equal_a_loop_over_experts(counts: list[int]) -> None:
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda").bfloat16() / 8

    x_RD, ends_L = random(sum(counts) + 5, 64), torch.tensor(counts, device="cuda").cumsum(0).to(torch.int32)
    gate_up, down = random(len(counts), 48, 64), random(len(counts), 64, 24)
    found, expected = (f(x_RD, ends_L, gate_up, down)[: sum(counts)] for f in (grouped_experts, grouped_experts_plain))
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=2e-2)


def test_a_moe_layer_never_waits_for_the_device() -> None:
    """No host synchronisation, so a decode step can be captured as a CUDA graph."""
    config = ModelConfig.model_validate(a_config(first_k_dense_replace=0))
    device = torch.device("cuda")
    moe = build(config, Mesh(), Communicator.single(), device, torch.bfloat16).layers[0].mlp
    for parameter in moe.parameters():
        parameter.fill_(0.01)
    x_TD = torch.ones(7, config.hidden_size, device=device, dtype=torch.bfloat16)
    moe(x_TD)  # the first call may load kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        moe(x_TD)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_rank_waits_for_its_gpu_as_in_a_collective() -> None:
    watch, device = CountingWatch(), torch.device("cuda")
    torch.cuda._sleep(10**9)  # cycles: half a second
    end = torch.cuda.Event()
    end.record()
    assert not end.query()
    Communicator(Mesh(), watch, {}).settle(device)
    assert end.query()
    assert (watch.entered, watch.left) == (1, 1)


@pytest.mark.parametrize("params", [{"temperature": 0}, {"top_p": 0.7}, {"top_k": 5, "min_p": 0.01}, {}], ids=str)
def test_sampling_gives_the_tokens_that_the_cpu_gives(params: dict[str, float]) -> None:
    logits_SV = torch.randn(64, 20_000, generator=torch.Generator().manual_seed(0)) * 4
    rules = [SamplingParams(seed=seed, **params) for seed in range(64)]
    assert sample(logits_SV.cuda(), rules, range(64)) == sample(logits_SV, rules, range(64))


def test_a_rank_without_a_gpu_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"needs GPU {NUM_GPUS}, this pod sees {NUM_GPUS}"):
        rank_device("cuda", NUM_GPUS)
