"""A group whose model computes no numbers does not serve: it fails at its start, or after steps of nothing else."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_worker.engine.runner import Runner
from glm_worker.engine.soundness import BROKEN_STEPS, Soundness
from glm_worker.errors import EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, write_checkpoint
from unit.worker.test_lockstep import FakeRunner, Pair, a_submit, outputs_of

hold_torch_to_one_thread()

CPU = torch.device("cpu")


def test_steps_that_are_broken_as_a_whole_fail_the_generation() -> None:
    soundness = Soundness()
    for _ in range(BROKEN_STEPS - 1):
        soundness.note(num_rows=2, num_broken=2)
    with pytest.raises(EngineFailed, match=f"no numbers .* in {BROKEN_STEPS} steps in a row"):
        soundness.note(num_rows=1, num_broken=1)


def test_one_good_row_says_that_the_model_computes() -> None:
    soundness = Soundness()
    for _ in range(3):
        for _ in range(BROKEN_STEPS - 1):
            soundness.note(num_rows=1, num_broken=1)
        soundness.note(num_rows=4, num_broken=3)


def test_a_step_that_samples_nothing_says_nothing() -> None:
    soundness = Soundness()
    for _ in range(BROKEN_STEPS - 1):
        soundness.note(num_rows=1, num_broken=1)
        soundness.note(num_rows=0, num_broken=0)
    with pytest.raises(EngineFailed):
        soundness.note(num_rows=1, num_broken=1)


def breaks_for_ever(runner: FakeRunner) -> None:
    wait = runner.wait

    def broken() -> Tensor:
        return wait().fill_(math.nan)

    runner.wait = broken  # type: ignore[method-assign]


def test_a_group_that_answers_only_errors_fails_with_its_last_request_unanswered() -> None:
    pair = Pair()
    breaks_for_ever(pair.runners[0])
    for number in range(BROKEN_STEPS - 1):
        pair.turn(a_submit(f"r-{number}"))
        (output,) = outputs_of(pair, f"r-{number}")
        assert output.finish_reason == "failed"
    with pytest.raises(EngineFailed, match="no numbers"):
        pair.turn(a_submit("last"))
    assert outputs_of(pair, "last") == [], "it goes on in the next generation"


@pytest.mark.parametrize("number", [math.nan, math.inf, 1.0])
def test_weights_that_make_no_numbers_are_found_before_a_request_comes(tmp_path: Path, number: float) -> None:
    raw = a_config(attention_bias=True, use_qk_norm=True)
    config = ModelConfig.model_validate(raw)
    folder = write_checkpoint(tmp_path / "tiny", raw)
    model = load_model(folder, config, Mesh(), Communicator.single(), CPU, torch.float32)
    with torch.no_grad():
        model.norm.weight.mul_(number)
    cache = KVCache.allocate(config, Mesh(), 4, 4, torch.float32, CPU)
    runner = Runner(model, cache, Communicator.single(), CPU)
    if math.isfinite(number):
        runner.warm_up()
    else:
        with pytest.raises(EngineFailed, match="its weights or this device are broken"):
            runner.warm_up()
