"""`glm-worker serve --device cuda` as it is shipped, on as many GPUs as glm-nano can be split over: a rank a GPU."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import torch

from integration.pods import LIMIT_S, Group, assert_hung, eventually, running_group

NUM_GPUS = torch.cuda.device_count()
NUM_RANKS = next((n for n in (4, 2, 1) if n <= NUM_GPUS), 0)  # glm-nano has 4 KV heads
HEARTBEAT_LIMIT_S = 5.0
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(NUM_GPUS == 0, reason="NOT TESTED: no CUDA device here, so nothing was served on one"),
]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    settings = {"device": "cuda", "ranks_per_pod": NUM_RANKS, "tensor_parallel": NUM_RANKS}
    folder = tmp_path_factory.mktemp("group")
    with running_group(folder, heartbeat_limit_s=HEARTBEAT_LIMIT_S, **settings) as group:
        group.serving()
        yield group


@pytest.fixture(scope="module")
def client(group: Group) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{group.leader.host}:8000/v1", api_key="none", timeout=LIMIT_S)


def ask(client: openai.OpenAI, text: str) -> tuple[str, str]:
    """Return thinking and answer."""
    messages: list = [{"role": "user", "content": text}]
    reply = client.chat.completions.create(model="glm-nano", messages=messages, temperature=0, max_tokens=300)
    message = reply.choices[0].message
    return str(getattr(message, "reasoning_content", None) or ""), str(message.content)


def test_the_zygote_has_one_thread_and_no_gpu(group: Group) -> None:
    """Or what it forks would be broken: neither threads nor CUDA survive a fork."""
    zygote = group.leader.child("zygote")
    assert zygote.num_threads() == 1
    assert not [fd for fd in Path(f"/proc/{zygote.pid}/fd").iterdir() if "nvidia" in str(fd.readlink())]


def test_it_thinks_and_answers_right(client: openai.OpenAI) -> None:
    thinking, answer = ask(client, "What is 12+30?")
    assert "42" in answer
    assert thinking


def test_many_at_once_are_answered_right(client: openai.OpenAI) -> None:
    lengths = [5 + i % 40 for i in range(64)]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: ask(client, f"Count from 1 to {n}.")[1], lengths))
    right = sum(answer.split(",")[-1].strip(" .") == str(n) for n, answer in zip(lengths, answers, strict=True))
    assert right >= 0.95 * len(lengths), answers


def test_a_killed_rank_costs_one_generation(group: Group, client: openai.OpenAI) -> None:
    before = group.serving()["generation"]
    group.rank(NUM_RANKS - 1).kill()
    assert "42" in ask(client, "What is 12+30?")[1]
    group.serving(after=before)
    cause = group.last_end(before)
    assert (cause["rank"], cause["reason"], cause["signal"]) == (NUM_RANKS - 1, "killed", 9)


def test_a_stopped_rank_is_found_and_named(group: Group, client: openai.OpenAI) -> None:
    before = group.serving()["generation"]
    group.rank(NUM_RANKS - 1).suspend()
    assert_hung(group.last_end(before), NUM_RANKS - 1, HEARTBEAT_LIMIT_S)
    assert "42" in ask(client, "What is 12+30?")[1]


def test_what_a_killed_generation_held_on_the_gpu_is_free_for_the_next(group: Group) -> None:
    def free_bytes() -> int:
        return torch.cuda.mem_get_info(0)[0]

    serving = group.serving()["generation"]
    before = free_bytes()
    for _ in range(3):
        group.rank(0).kill()
        serving = group.serving(after=serving)["generation"]
    assert abs(free_bytes() - before) < 2**28


def test_sigterm_finishes_what_runs_and_exits_with_0(group: Group) -> None:
    """Last: nothing serves after it."""
    group.serving()
    body = {"model": "glm-nano", "messages": [{"role": "user", "content": "Count from 1 to 90."}], "max_tokens": 400}
    url = f"http://{group.leader.host}:8000/v1/chat/completions"
    with httpx.stream("POST", url, json={**body, "stream": True, "ignore_eos": True}, timeout=LIMIT_S) as response:
        lines = response.iter_lines()
        next(line for line in lines if line)
        os.kill(group.leader.process.pid, signal.SIGTERM)
        eventually(lambda: group.leader.get("/readyz").status_code == 503)
        assert "data: [DONE]" in list(lines)
    assert group.leader.process.wait(LIMIT_S) == 0
