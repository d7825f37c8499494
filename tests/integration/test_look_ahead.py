"""Steps launched ahead of those before, in real rank processes: the same answers, by torch and by the kernels in C.

On a CPU a launch computes, so nothing is gained here: what is tested is that nothing is lost.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from glm_worker.engine import rank
from glm_worker.kernels.cpu.library import KernelsUnavailable, Library
from glm_worker.messages import StepBegins, StepDone
from glm_worker.model import glm_moe
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.prefix import seed_of
from integration.engine_group import a_request, as_they_are, engine_group
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, write_checkpoint

pytestmark = pytest.mark.long  # off by default; tests/unit/worker has its decisions

BLOCK_SIZE = 4
BLOCK_BYTES = 2 * 3 * BLOCK_SIZE * 4 * 16 * 4  # K and V, layers, tokens, KV heads, head_dim, fp32
TIGHT: dict[str, Any] = {"block_size": BLOCK_SIZE, "max_batch_tokens": 16}
NUM_TOKENS = 14
SHARED = {"cache_seed": seed_of("somebody")}


def named(request: EngineRequest, **changes: object) -> EngineRequest:
    return msgspec.structs.replace(request, **changes)


def the_requests() -> list[EngineRequest]:
    """Plain ones, of some length; and a few that ask for what the host must do."""
    requests = [a_request(f"greedy-{n}", [(7 * i + n) % 131 for i in range(n)], NUM_TOKENS) for n in (1, 5, 20, 37)]
    samplings = [
        SamplingParams(seed=1, temperature=0.8),
        SamplingParams(seed=2, temperature=0.8, top_p=0.9),
        SamplingParams(seed=3, temperature=0.9, top_k=20, min_p=0.01),
    ]
    requests += [a_request(f"seed-{s.seed}", range(3, 9), NUM_TOKENS, s) for s in samplings]
    requests += [named(requests[2], request_id="shared", **SHARED), named(requests[2], request_id="too", **SHARED)]
    penalised = a_request("penalised", [5, 6], 5, SamplingParams(seed=4, frequency_penalty=0.8))
    logprobs = named(a_request("logprobs", [7, 8, 9], 4), num_logprobs=2)
    return [*requests, penalised, logprobs, named(a_request("least", [9, 1], 9, samplings[0]), min_tokens=4)]


REQUESTS = the_requests()


def by_torch() -> None:
    """Let a rank compute and draw by torch, as where the kernels in C cannot be loaded."""
    glm_moe.load = _unavailable
    rank.sample_kernel = lambda _num_threads: None


def _unavailable() -> Library:
    raise KernelsUnavailable("not wanted here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hold_torch_to_one_thread()
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), a_config(use_qk_norm=True))
    (folder / "tokenizer.json").write_text("{}")  # the engine only wants it to be there
    return folder


@pytest.fixture(scope="module", params=["torch", "cpu"])
def changed(request: pytest.FixtureRequest) -> Any:
    """What all ranks compute by."""
    return by_torch if request.param == "torch" else as_they_are


@pytest.fixture(scope="module")
def alone(folder: Path, changed: Any) -> Iterator[dict[str, list[int]]]:
    """What each request gets by itself, one step after the other."""
    with engine_group(folder, changed=changed, look_ahead="off", **TIGHT) as (group, _):
        yield {request.request_id: group.answer(request)[0].token_ids for request in REQUESTS}


def tight(num_blocks: int, tensor_parallel: int = 1) -> dict[str, Any]:
    """Settings with few blocks, of which a rank holds its own heads only."""
    num_bytes = num_blocks * BLOCK_BYTES // tensor_parallel
    return TIGHT | {"look_ahead": "on", "kv_cache_bytes": num_bytes, "tensor_parallel": tensor_parallel}


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 1), (2, 2)])
def test_answers_are_the_same_in_batches_in_chunks_preempted_and_on_two_ranks(
    folder: Path, changed: Any, alone: dict[str, list[int]], world_size: int, tensor_parallel: int
) -> None:
    settings = tight(16, tensor_parallel)
    with engine_group(folder, world_size, changed=changed, **settings) as (group, ready):
        assert ready.limits.num_blocks == 16
        answers = group.answer(*REQUESTS)
        assert {r.request_id: a.token_ids for r, a in zip(REQUESTS, answers, strict=True)} == alone
        assert len(group.answers["logprobs"].logprobs) == 4
        assert group.steps[-1].num_preemptions > 0
        (again,) = group.answer(named(REQUESTS[2], request_id="again", **SHARED))
        assert again.token_ids == alone["greedy-20"]
        last = group.steps[-1]
        assert (last.kv_blocks_used, last.num_running, last.num_waiting, last.num_tokens_waiting) == (0, 0, 0, 0)
        computed = sum(step.prefill_tokens + step.decode_tokens for step in group.steps)
        by_rank = [step.expert_tokens_by_rank for step in group.steps if step.expert_tokens_by_rank]
        assert sum(map(sum, by_rank)) == computed * 2 * 3  # 2 MoE layers, 3 experts a token


def test_a_stop_token_ends_an_answer_though_the_next_step_runs_and_its_blocks_go_to_others(
    folder: Path, changed: Any, alone: dict[str, list[int]]
) -> None:
    """One after the other in the same few blocks: what is written behind the end must be nobody else's context."""
    tokens = alone["greedy-20"]
    stop = tokens[6]
    expected = tokens[: tokens.index(stop) + 1]
    with engine_group(folder, 2, changed=changed, **tight(14)) as (group, _):
        for number in range(4):
            stopping = named(REQUESTS[2], request_id=f"stopping-{number}", stop_token_ids=[stop])
            follower = named(REQUESTS[4], request_id=f"follower-{number}")
            stopped, followed = group.answer(stopping, follower)
            assert (stopped.token_ids, stopped.endings) == (expected, ["stop"])
            assert followed.token_ids == alone["seed-1"]


def test_cancels_at_any_time_change_nothing_for_the_others(
    folder: Path, changed: Any, alone: dict[str, list[int]]
) -> None:
    with engine_group(folder, 2, changed=changed, **tight(40)) as (group, _):
        for number in range(6):
            lost = a_request(f"lost-{number}", range(number + 3), 80)
            kept = named(REQUESTS[number], request_id=f"kept-{number}")
            group.submit(lost, kept)
            group.receive_until(lambda lost=lost, number=number: len(group.answers[lost.request_id].token_ids) > number)
            group.cancel(lost.request_id)
            group.receive_until(lambda kept=kept: bool(group.answers[kept.request_id].endings))
            group.receive_until(lambda lost=lost: bool(group.answers[lost.request_id].endings))
            assert group.answers[lost.request_id].endings == ["cancelled"]
            assert group.answers[kept.request_id].token_ids == alone[REQUESTS[number].request_id]
        group.answer(a_request("last", [1], 2))
        assert (group.steps[-1].kv_blocks_used, group.steps[-1].num_running) == (0, 0)


@pytest.mark.parametrize(
    ("look_ahead", "order"), [("on", ["a", "b", 1]), ("off", ["a", 1, "b"]), ("auto", ["a", 1, "b"])]
)
def test_the_server_hears_of_a_step_before_it_is_launched_and_so_before_the_one_that_runs_ends(
    folder: Path, look_ahead: str, order: list[str | int]
) -> None:
    """Two prompts that fill a step each. On CPUs nobody looks ahead who was not told to."""
    with engine_group(folder, **TIGHT, look_ahead=look_ahead) as (group, _):
        group.submit(a_request("a", range(16), 1), a_request("b", range(16), 1))
        heard: list[str | int] = []
        while len(heard) < 3:
            message = group.receive()
            if isinstance(message, StepBegins):
                heard += message.scheduled
            elif isinstance(message, StepDone):
                heard.append(message.step)
        assert heard == order
