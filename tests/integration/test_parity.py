"""GlmMoe against transformers' Glm4MoeForCausalLM in fp32, teacher-forced, on 1, 2 and 4 ranks.

The tolerance and its reason are in parity.py; the last test shows that it can fail.
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_worker.kernels.cpu.library import available_isas
from glm_worker.model.config import ModelConfig
from glm_worker.model.weights import load_model
from integration.oracle import oracle_logits
from integration.parity import Case, Outcome, assert_parity, compare, some_prompts, tolerance
from integration.rank_pool import Rank, hold_torch_to_one_thread, run_ranks
from integration.teacher_forcing import mixed_steps, prefill_then_decode, teacher_forced_logits, whole_prompts
from integration.tiny_models import a_config, copy_of_nano, write_checkpoint

hold_torch_to_one_thread()

MESHES = ((1, 1), (2, 2), (4, 2))  # world_size, tensor_parallel
EDGES = tuple(pytest.param(*mesh, marks=pytest.mark.long) for mesh in ((2, 1), (4, 1), (4, 4)))

CASES = {
    f"qk_norm={qk_norm}-dense={dense}-scale={scale}-bias={bias}": a_config(
        use_qk_norm=qk_norm,
        first_k_dense_replace=dense,
        num_hidden_layers=dense + 2,
        routed_scaling_factor=scale,
        attention_bias=bias,
    )
    for qk_norm, dense, scale, bias in itertools.product((False, True), (1, 3), (1.0, 2.5), (False, True))
}
# Half of them, chosen so that every three of the four choices still appear in all combinations
HALF = [name for name in CASES if sum(word in name for word in ("norm=True", "dense=3", "scale=2.5", "bias=True")) % 2]


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function from a name to its checkpoint, prompts and the oracle's logits, each made once."""
    made: dict[str, Case] = {}

    def case_of(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp("model")
            copy_of_nano(folder) if name == "glm-nano" else write_checkpoint(folder, CASES[name])
            prompts = some_prompts(ModelConfig.read(folder).vocab_size)
            made[name] = Case(folder, prompts, oracle_logits(folder, prompts))
        return made[name]

    return case_of


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fixed_order", [False, True])
def test_one_rank_gives_the_logits_of_the_oracle(
    case_of: Callable[[str], Case], name: str, *, fixed_order: bool
) -> None:
    case = case_of(name)
    assert_parity(run_ranks(partial(compare, whole_prompts(case.prompts), case, fixed_order=fixed_order), 1), name)


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [*MESHES, *EDGES])
def test_any_mesh_and_any_division_into_steps_give_the_logits_of_the_oracle(
    case_of: Callable[[str], Case], tmp_path: Path, world_size: int, tensor_parallel: int
) -> None:
    """Four ranks are those of one pod, which share memory; two speak over sockets, as over pods."""
    meeting_dir = tmp_path if world_size == 4 else None
    cases = {name: case_of(name) for name in (*HALF, "glm-nano")}

    def outcomes(rank: Rank) -> dict[str, Outcome]:
        found = {}
        for name, case in cases.items():
            found[f"{name}, whole prompts"] = compare(whole_prompts(case.prompts), case, rank)
            found[f"{name}, then decode"] = compare(prefill_then_decode(case.prompts, num_decode=4), case, rank)
            found[f"{name}, mixed steps"] = compare(mixed_steps(case.prompts, seed=world_size), case, rank)
        nano = cases["glm-nano"]
        mixed = mixed_steps(nano.prompts, seed=world_size)
        found["glm-nano, mixed steps in a fixed order"] = compare(mixed, nano, rank, fixed_order=True)
        for name, case in cases.items():
            found[f"{name}, kernels"] = compare(mixed_steps(case.prompts, seed=9), case, rank, kernel_threads=1)
        bits = [compare(steps, nano, rank, kernel_threads=2).digest for steps in (mixed, whole_prompts(nano.prompts))]
        assert bits == 2 * [found["glm-nano, kernels"].digest], "steps and threads change no bit"
        return found

    # All models in one run: forking ranks costs the most
    ranks = run_ranks(outcomes, world_size, tensor_parallel, meeting_dir=meeting_dir)
    for what in ranks[0]:
        assert_parity([found[what] for found in ranks], what)


@pytest.mark.long
@pytest.mark.parametrize(("world_size", "tensor_parallel"), MESHES)
def test_every_instruction_set_gives_the_logits_of_the_oracle(
    case_of: Callable[[str], Case], world_size: int, tensor_parallel: int
) -> None:
    """The best one has its turn in the test before, beside all others that a user's CPU may be left with here."""
    cases = {name: case_of(name) for name in (*HALF, "glm-nano")}

    def outcomes(rank: Rank) -> dict[str, Outcome]:
        return {
            f"{name}, {isa}": compare(mixed_steps(case.prompts, seed=9), case, rank, kernel_threads=1, isa=isa)
            for name, case in cases.items()
            for isa in available_isas()
        }

    ranks = run_ranks(outcomes, world_size, tensor_parallel)
    for what in ranks[0]:
        assert_parity([found[what] for found in ranks], what)


@pytest.mark.parametrize(
    "change",
    [
        {"routed_scaling_factor": 1.01},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10100.0, "partial_rotary_factor": 0.5}},
        {"rms_norm_eps": 1e-4},
        {"norm_topk_prob": False},
        {"num_experts_per_tok": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_small_error_of_the_formula_is_far_outside_the_tolerance(
    case_of: Callable[[str], Case], change: dict[str, object]
) -> None:
    case = case_of(HALF[0])
    config = ModelConfig.model_validate(CASES[HALF[0]] | change)

    def logits(rank: Rank) -> Tensor:
        model = load_model(case.folder, config, rank.mesh, rank.comm, rank.device, torch.float32)
        return torch.cat(teacher_forced_logits(model, rank.mesh, case.prompts, whole_prompts(case.prompts)))

    (found,) = run_ranks(logits, 1)
    expected = torch.cat(case.expected)
    assert (found - expected).abs().max() > 10 * tolerance(expected)
