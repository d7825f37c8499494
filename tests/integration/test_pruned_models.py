"""Variants with fewer experts than any model of the family: their counts come from config.json."""

from functools import partial
from pathlib import Path

import pytest

from glm_worker.model.config import ModelConfig
from integration.oracle import oracle_logits
from integration.parity import Case, assert_parity, compare, some_prompts
from integration.rank_pool import hold_torch_to_one_thread, run_ranks
from integration.teacher_forcing import whole_prompts
from integration.tiny_models import a_config, write_checkpoint

hold_torch_to_one_thread()


@pytest.mark.parametrize(("num_experts", "per_token", "world_sizes"), [(6, 2, (1, 2, 3)), (5, 5, (1,)), (2, 1, (1, 2))])
def test_a_pruned_variant_gives_the_logits_of_the_oracle(
    tmp_path: Path, num_experts: int, per_token: int, world_sizes: tuple[int, ...]
) -> None:
    config = a_config(n_routed_experts=num_experts, num_experts_per_tok=per_token)
    folder = write_checkpoint(tmp_path / "pruned", config)
    prompts = some_prompts(ModelConfig.read(folder).vocab_size)
    case = Case(folder, prompts, oracle_logits(folder, prompts))
    for world_size in world_sizes:
        outcomes = run_ranks(partial(compare, whole_prompts(prompts), case), world_size, 1)
        assert_parity(outcomes, f"{num_experts} experts on {world_size} ranks")
