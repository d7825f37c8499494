"""The engine in real rank processes, joined by gloo and ZMQ, on a tiny random checkpoint; the test is the server.

What is compared is tokens: the same request must get the same ones alone, in a batch, in chunks, after preemptions and
on two ranks. Between numbers of ranks logits differ by rounding (1e-6 and less), the best two of a random model by far
more; at equal ranks not at all (test_fixed_order.py).
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import torch

from glm_worker.heartbeat import Phase
from glm_worker.messages import Submit
from glm_worker.model.config import ModelConfig
from glm_worker.model.forward_batch import HostBatch
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from integration.engine_group import DEADLINE_S, EngineGroup, a_request, all_ready, engine_group
from integration.listening import has_ipv6
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, write_checkpoint

BLOCK_SIZE = 4
BLOCK_BYTES = 2 * 3 * BLOCK_SIZE * 4 * 16 * 4  # K and V, layers, tokens, KV heads, head_dim, fp32
TINY = {"block_size": BLOCK_SIZE, "kv_cache_bytes": 16 * BLOCK_BYTES, "max_batch_tokens": 16}
MAX_TOKENS = 14

GREEDY_REQUESTS = [a_request(f"greedy-{n}", [(7 * i + n) % 131 for i in range(n)], MAX_TOKENS) for n in (1, 5, 20, 37)]
SAMPLED_REQUESTS = [
    a_request(
        f"seed-{seed}", range(3, 9), MAX_TOKENS, SamplingParams(seed=seed, temperature=0.8, top_p=top_p, top_k=top_k)
    )
    for seed, top_p, top_k in ((1, 1.0, 0), (2, 0.9, 0), (3, 1.0, 20))
]
REQUESTS = [*GREEDY_REQUESTS, *SAMPLED_REQUESTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hold_torch_to_one_thread()
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), a_config(use_qk_norm=True))
    (folder / "tokenizer.json").write_text("{}")  # the engine only wants it to be there
    return folder


@pytest.fixture(scope="module")
def one_rank(folder: Path) -> Iterator[EngineGroup]:
    with engine_group(folder, block_size=BLOCK_SIZE) as (group, _):
        yield group


@pytest.fixture(scope="module")
def alone(one_rank: EngineGroup) -> dict[str, list[int]]:
    """What each request gets when it is the only one."""
    return {request.request_id: one_rank.answer(request)[0].token_ids for request in REQUESTS}


def named(requests: list[EngineRequest], prefix: str) -> list[EngineRequest]:
    """The same requests under other ids: an id is used once in a generation."""
    return [msgspec.structs.replace(request, request_id=f"{prefix}-{request.request_id}") for request in requests]


def tokens_together(group: EngineGroup, requests: list[EngineRequest], prefix: str) -> dict[str, list[int]]:
    answers = group.answer(*named(requests, prefix))
    return {request.request_id: answer.token_ids for request, answer in zip(requests, answers, strict=True)}


def greedy_by_hand(folder: Path, prompt: list[int], num_tokens: int) -> list[int]:
    """The whole sequence through the model anew for each token: no scheduler, no cache to get wrong."""
    config, mesh, cpu = ModelConfig.read(folder), Mesh(), torch.device("cpu")
    model = load_model(folder, config, mesh, Communicator.single(), cpu, torch.float32)
    tokens = list(prompt)
    for _ in range(num_tokens):
        n = len(tokens)
        kv_cache = KVCache.allocate(config, mesh, 1, n, torch.float32, cpu)
        every = range(n)
        batch = HostBatch.of(tokens, every, every, [0, n], [n], [[0]], [n - 1]).on_device(n, cpu)
        tokens.append(int(model(batch, model.plan(batch), kv_cache).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("request_id", [request.request_id for request in GREEDY_REQUESTS])
def test_greedy_tokens_are_those_of_the_model(folder: Path, alone: dict[str, list[int]], request_id: str) -> None:
    request = next(request for request in GREEDY_REQUESTS if request.request_id == request_id)
    assert alone[request_id] == greedy_by_hand(folder, request.prompt_token_ids, MAX_TOKENS)


def test_a_batch_gets_the_tokens_that_each_gets_alone(one_rank: EngineGroup, alone: dict[str, list[int]]) -> None:
    assert tokens_together(one_rank, REQUESTS, "batched") == alone


@pytest.mark.parametrize(
    ("settings", "deterministic"), [({}, True), ({"deterministic": False}, False), ({"threads_per_rank": 2}, True)]
)
def test_the_engine_says_whether_its_bits_depend_on_a_request_alone(
    folder: Path, settings: dict[str, object], deterministic: bool
) -> None:
    with engine_group(folder, block_size=BLOCK_SIZE, **settings) as (_, ready):
        assert ready.deterministic is deterministic


def test_seeds_reproduce_and_differ(one_rank: EngineGroup, alone: dict[str, list[int]]) -> None:
    sampling = SamplingParams(temperature=1.0, seed=11)
    same = [a_request(f"same-{i}", [5, 6, 7], MAX_TOKENS, sampling) for i in range(2)]
    other = a_request("other", [5, 6, 7], MAX_TOKENS, msgspec.structs.replace(sampling, seed=12))
    first, second, third = (answer.token_ids for answer in one_rank.answer(*same, other))
    assert first == second != third


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 1), (2, 2)])
def test_chunks_preemptions_and_ranks_change_no_token(
    folder: Path, alone: dict[str, list[int]], world_size: int, tensor_parallel: int
) -> None:
    settings = TINY | {"kv_cache_bytes": TINY["kv_cache_bytes"] // tensor_parallel}  # a rank holds its own heads only
    with engine_group(folder, world_size, tensor_parallel=tensor_parallel, **settings) as (group, ready):
        assert ready.limits.num_blocks == 16
        assert tokens_together(group, REQUESTS, "tight") == alone
        last = group.steps[-1]
        assert last.num_preemptions > 0
        assert (last.kv_blocks_used, last.num_running, last.num_waiting, last.num_tokens_waiting) == (0, 0, 0, 0)
        scheduled = [request_id for step in group.steps for request_id in step.scheduled]
        assert sorted(scheduled) == sorted(request.request_id for request in named(REQUESTS, "tight"))  # once each
        assert all(slot.snapshot().step == last.step for slot in group.slots)
        assert_work_adds_up(group, world_size)


def assert_work_adds_up(group: EngineGroup, world_size: int) -> None:
    """Of a tiny model with MoE layers 1 and 2 of three, and 3 experts a token."""
    steps = group.steps
    computed = sum(step.prefill_tokens + step.decode_tokens for step in steps)
    generated = sum(len(answer.token_ids) for answer in group.answers.values())
    assert sum(step.prefill_tokens for step in steps) > sum(len(request.prompt_token_ids) for request in REQUESTS)
    assert 0 < sum(step.decode_tokens for step in steps) < generated
    assert all(step.prefill_s + step.decode_s > 0 for step in steps)
    assert steps[-1].num_prompt_tokens_left == 0
    assert max(step.num_prompt_tokens_left for step in steps) > 0
    by_rank = [step.expert_tokens_by_rank for step in steps if step.expert_tokens_by_rank]
    assert {len(tokens) for tokens in by_rank} == {world_size}
    assert sum(map(sum, by_rank)) == computed * 2 * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ranks_of_several_pods_meet_at_the_ports_of_the_leader(
    folder: Path, alone: dict[str, list[int]], host: str
) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with engine_group(folder, 2, num_pods=2, host=host) as (group, _):
        assert tokens_together(group, REQUESTS[:2], "pods") == {r.request_id: alone[r.request_id] for r in REQUESTS[:2]}
        store_port, channel_port = group.ports
        leader, follower = group.listening()
        assert (host, channel_port) in leader
        assert store_port in {port for _, port in leader}
        assert not {store_port, channel_port} & {port for _, port in follower}


def test_ranks_of_one_pod_can_be_reached_from_nowhere_else(folder: Path) -> None:
    """Though the pod itself listens on all addresses, as it does in a cluster."""
    with engine_group(folder, 2, host="0.0.0.0") as (group, _):
        assert [{address for address, _ in sockets} for sockets in group.listening()] == [{"127.0.0.1"}] * 2  # gloo's


def test_max_tokens_is_exact_and_a_stop_token_is_delivered_last(
    one_rank: EngineGroup, alone: dict[str, list[int]]
) -> None:
    request = GREEDY_REQUESTS[2]
    tokens = alone[request.request_id]
    assert len(tokens) == MAX_TOKENS
    assert one_rank.answers[request.request_id].endings == ["length"]
    stop = tokens[5]
    stopping = msgspec.structs.replace(request, request_id="stopping", stop_token_ids=[999, stop])
    (answer,) = one_rank.answer(stopping)
    assert (answer.token_ids, answer.endings) == (tokens[: tokens.index(stop) + 1], ["stop"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_cancelled_request_ends_once_and_frees_its_blocks(folder: Path, world_size: int) -> None:
    with engine_group(folder, world_size) as (group, _):
        group.submit(a_request("long", [1, 2, 3], 400), a_request("waits", [4], 400))
        long = group.answers["long"]
        group.receive_until(lambda: len(long.token_ids) >= 3)
        for request_id in ("long", "waits", "long", "nobody"):
            group.cancel(request_id)
        group.receive_until(lambda: bool(group.answers["waits"].endings))
        assert long.endings == group.answers["waits"].endings == ["cancelled"]
        assert (group.steps[-1].kv_blocks_used, group.steps[-1].num_running) == (0, 0)
        (after,) = group.answer(a_request("after", [1, 2, 3], 2))  # and the ranks are still in step
        assert after.token_ids == long.token_ids[:2]


def test_a_request_that_can_never_fit_ends_without_tokens_and_stops_nobody(folder: Path) -> None:
    with engine_group(folder, **TINY) as (group, _):
        fits, too_long = a_request("fits", range(50), 14), a_request("too-long", range(51), 14)
        fitting, ended = group.answer(fits, too_long)
        assert (ended.token_ids, ended.endings) == ([], ["length"])
        assert (len(fitting.token_ids), fitting.endings) == (14, ["length"])


def test_commands_of_another_generation_are_dropped(one_rank: EngineGroup) -> None:
    stray, real = a_request("stray", [1], 1), a_request("real", [1], 1)
    one_rank.send(Submit("test-0", stray))
    one_rank.answer(real)
    assert all(output.request_id != "stray" for step in one_rank.steps for output in step.outputs)


def test_idle_ranks_show_signs_of_life_and_wait_outside_of_collectives(folder: Path) -> None:
    with engine_group(folder, 2) as (group, _):
        deadline = time.monotonic() + DEADLINE_S
        changes_ns: list[list[int]] = [[], []]
        while not all_ready(group.slots) or any(len(seen) < 4 for seen in changes_ns):
            assert time.monotonic() < deadline, f"changes of the slots: {changes_ns}"
            assert not group.has_message(within_ms=20)
            for seen, slot in zip(changes_ns, group.slots, strict=True):
                view = slot.snapshot()
                if view.phase == Phase.ready and view.changed_ns not in seen:
                    seen.append(view.changed_ns)
        for seen, slot in zip(changes_ns, group.slots, strict=True):
            # At most 0.5 s are allowed; a starved machine may stretch some gaps, not all
            assert min(later - earlier for earlier, later in pairwise(seen)) <= 0.5e9
            assert not slot.snapshot().in_collective
