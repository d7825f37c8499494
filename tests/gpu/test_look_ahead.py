"""Steps launched ahead on a GPU: the same answers, and a launch that waits for nothing. Nobody has run this yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from glm_worker.engine.batch import StepRoom
from glm_worker.engine.engine import Engine
from glm_worker.engine.look_ahead import DeviceDraws
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.engine.step_tokens import sample_oldest
from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler
from integration.tiny_models import a_config, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() == 0, reason="NOT TESTED: no CUDA device here, so no step was launched ahead on one"
    ),
]
DEVICE, BLOCK_SIZE, NUM_BLOCKS = torch.device("cuda"), 16, 64
SAMPLINGS = [SamplingParams(temperature=0), SamplingParams(seed=1), SamplingParams(seed=2, top_p=0.9, top_k=40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GlmMoe:
    folder: Path = write_checkpoint(tmp_path_factory.mktemp("tiny"), a_config(use_qk_norm=True))
    model = load_model(folder, ModelConfig.read(folder), Mesh(), Communicator.single(), DEVICE, torch.float32)
    model.use_triton()
    return model


def an_engine(model: GlmMoe, *, looks_ahead: bool) -> Engine:
    kv_cache = KVCache.allocate(model.config, Mesh(), NUM_BLOCKS, BLOCK_SIZE, torch.float32, DEVICE)
    draws, room = DeviceDraws() if looks_ahead else None, StepRoom(64, 8, 8)
    runner = Runner(model, kv_cache, Communicator.single(), DEVICE, room=room, draws=draws)
    runner.warm_up()
    model.capture_graphs(kv_cache, GraphRoom(8, 8, BLOCK_SIZE), lambda _done, _total: None)
    limits = SchedulerLimits(128, 64, 8, NUM_BLOCKS, BLOCK_SIZE)
    return Engine(Scheduler(limits, max_uncommitted=1 + looks_ahead), runner, looks_ahead=looks_ahead)


def answers(engine: Engine) -> dict[str, list[int]]:
    for number, prompt in enumerate((1, 5, 20, 37, 70, 9)):
        engine.scheduler.add(
            EngineRequest(
                request_id=f"r{number}",
                prompt_token_ids=[(7 * i + number) % 131 for i in range(prompt)],
                max_tokens=20,
                stop_token_ids=[number],
                sampling=SAMPLINGS[number % len(SAMPLINGS)],
            )
        )
    found: dict[str, list[int]] = {}
    sampler = Sampler()
    while engine.has_work:
        while engine.may_plan:
            plan = engine.plan()
            if not plan.sequences:
                break
            with waiting_for_nothing(plan):
                engine.launch(plan)
        for output in engine.commit(sample_oldest(engine, sampler).token_ids):
            found.setdefault(output.request_id, []).extend(output.token_ids)
    return found


@contextmanager
def waiting_for_nothing(plan: ScheduledBatch) -> Iterator[None]:
    """Fail if torch waits for the device while a step is launched beside another."""
    is_ahead = any(sequence.token_ids[-1] == UNKNOWN_TOKEN for sequence in plan.sequences)
    torch.cuda.set_sync_debug_mode("error" if is_ahead else "default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_answers_are_the_same_and_no_launch_waits_for_the_step_that_runs(model: GlmMoe) -> None:
    """fp32: the best two of a random model differ by far more than sums in another order."""
    assert answers(an_engine(model, looks_ahead=True)) == answers(an_engine(model, looks_ahead=False))
