"""`glm-worker serve` as it is shipped: torch, gloo ranks, HTTP, glm-nano; one pod of two ranks and two pods of one.

What an answer should be is asked of the same group before anything is broken (temperature 0): these tests are about
the group, not about the model. Each start imports torch, so a group serves many tests, and what does not depend on
its shape is tested in one (the supervisor's own tests, with fake ranks, have all of it in both).
"""

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from glm_worker.models import resolve
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children import compilers
from integration.metrics_text import series_values
from integration.pods import LIMIT_S, Group, assert_hung, eventually, running_group

HEARTBEAT_LIMIT_S = 5.0
ANSWER_LIMIT_S = 180.0


ONE_POD, TWO_PODS = (
    pytest.param((1, 2), id="1 pod x 2 ranks"),
    pytest.param((2, 1), id="2 pods x 1 rank", marks=pytest.mark.long),  # test_supervisor.py has it, with fake ranks
)
in_one_pod = pytest.mark.parametrize("group", [ONE_POD], indirect=True)


@pytest.fixture(scope="module", params=[ONE_POD, TWO_PODS])
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    pods, ranks = request.param
    folder = tmp_path_factory.mktemp("group")
    with running_group(folder, pods=pods, ranks_per_pod=ranks, heartbeat_limit_s=HEARTBEAT_LIMIT_S) as group:
        group.serving()
        yield group


@pytest.fixture(scope="module")
def right_answer(group: Group) -> str:
    return answer(group)


def url(group: Group) -> str:
    return f"http://{group.leader.host}:8000/v1/chat/completions"


def question(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Count from 1 to 30."}]
    return {"model": "glm-nano", "messages": messages, "temperature": 0, "max_tokens": 48, **fields}


def answer(group: Group) -> str:
    """Ask, and return the answer's text and thinking. Anything but an answer is a failure."""
    response = httpx.post(url(group), json=question(), timeout=ANSWER_LIMIT_S)
    assert response.status_code == 200, response.text
    message = response.json()["choices"][0]["message"]
    return str(message.get("reasoning_content") or "") + str(message["content"])


LONG = {"max_tokens": 1900, "ignore_eos": True}
"""A second of work and more, whatever the model says."""


@dataclass(frozen=True)
class Asked:
    """A long question, asked twice in the background: for a stream, and for an answer in one piece."""

    stream: "Future[list[Any]]"
    piece: "Future[httpx.Response]"


def asked_in_the_background(group: Group) -> Asked:
    """Send a long question; return when the ranks are at work on it.

    The stream says when: its first text comes long before its last. Whoever asks the group for it may be answered late.
    """
    at_work = threading.Event()
    pool = ThreadPoolExecutor(2)
    piece = pool.submit(httpx.post, url(group), json=question(**LONG), timeout=ANSWER_LIMIT_S)
    stream = pool.submit(streamed, group, question(stream=True, **LONG), at_text=at_work.set)
    pool.shutdown(wait=False)
    assert at_work.wait(ANSWER_LIMIT_S)
    assert not stream.done(), "the answer came before anything could be done to it"
    return Asked(stream, piece)


def assert_whole(asked: Asked) -> None:
    told, reasons = asked.stream.result()
    assert reasons == ["length"]
    assert told["content"] or told["reasoning_content"]
    response = asked.piece.result()
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] == LONG["max_tokens"]


def metric(group: Group, name: str) -> float:
    """Return the value of a metric. The server may be late with its part of them."""

    def look() -> list[str]:
        return [str(value) for value in series_values(group.leader.get("/metrics").text, name)]

    return float(eventually(look)[0])


def has_text(event: dict[str, Any]) -> bool:
    """Return whether a streamed event shows the client something of the answer."""
    delta = event["choices"][0]["delta"] if event.get("choices") else {}
    return bool(delta.get("content") or delta.get("reasoning_content"))


def test_the_zygote_is_fit_to_be_forked(group: Group) -> None:
    """One thread, torch in it: a rank forked beside other threads could wait for ever for a lock that one held."""
    group.serving()
    zygote = group.leader.child("zygote")
    assert zygote.num_threads() == 1
    assert any("libtorch" in mapped.path for mapped in zygote.memory_maps())


@in_one_pod
def test_what_an_answer_took_is_measured_by_the_engine(group: Group) -> None:
    """Prompt and answer tokens to the last one; whose time a step was adds up to no more than passed."""
    group.serving()
    eventually(lambda: metric(group, "glm_num_requests_running") == 0)
    names = ("prefill_tokens", "prefill_busy_seconds", "decode_tokens", "decode_steps", "decode_busy_seconds")
    before, began_s = {name: metric(group, f"glm_{name}_total") for name in names}, time.monotonic()
    usage = httpx.post(url(group), json=question(), timeout=ANSWER_LIMIT_S).json()["usage"]
    eventually(lambda: metric(group, "glm_num_requests_running") == 0)
    passed_s = time.monotonic() - began_s
    took = {name: metric(group, f"glm_{name}_total") - before[name] for name in names}
    assert took["prefill_tokens"] == usage["prompt_tokens"]
    assert took["decode_tokens"] == took["decode_steps"] == usage["completion_tokens"] - 1, "the first is the prompt's"
    assert took["prefill_busy_seconds"] > 0
    assert took["decode_busy_seconds"] > 0
    assert took["prefill_busy_seconds"] + took["decode_busy_seconds"] <= passed_s
    assert 1 <= metric(group, "glm_expert_load_imbalance_ratio") <= 2, "of two ranks"
    assert metric(group, "glm_max_running_requests") == WorkerSettings.model_fields["max_num_seqs"].default
    assert metric(group, "glm_prompt_tokens_left") == metric(group, "glm_oldest_waiting_seconds") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_is_gone_leaves_no_block_in_use(group: Group, stream: bool) -> None:
    """How soon: benchmarks/cancel.py."""
    cancelled = 'glm_requests_total{model="glm-nano",outcome="cancelled"}'
    before = metric(group, cancelled)
    body = json.dumps(question(stream=stream, **LONG)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: nano\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((group.leader.host, 8000)) as client:
        client.sendall(head + body)
        eventually(lambda: metric(group, "glm_kv_cache_usage_ratio") > 0)
    eventually(lambda: metric(group, cancelled) == before + 1)
    eventually(lambda: metric(group, "glm_kv_cache_usage_ratio") == 0)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_rank_costs_one_generation_and_no_wrong_answer(group: Group, right_answer: str, rank: int) -> None:
    before = group.serving()["generation"]
    group.rank(rank).kill()
    assert answer(group) == right_answer  # held by the server, or answered by the next generation
    group.serving(after=before)
    cause = group.last_end(before)
    assert (cause["rank"], cause["reason"], cause["signal"]) == (rank, "killed", 9)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_request_at_work_when_a_rank_dies_is_answered_by_the_next_generation(group: Group, rank: int) -> None:
    before = group.serving()["generation"]
    asked = asked_in_the_background(group)
    group.rank(rank).kill()
    assert_whole(asked)
    assert group.last_end(before)["rank"] == rank


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_stream_whose_rank_is_killed_goes_on_word_for_word(group: Group, rank: int) -> None:
    before = group.serving()["generation"]
    body = question(stream=True, **LONG)
    unbroken = streamed(group, body)
    assert streamed(group, body, at_text=group.rank(rank).kill) == unbroken
    group.serving(after=before)
    assert group.last_end(before)["rank"] == rank


def streamed(group: Group, body: dict[str, object], at_text: Callable[[], None] | None = None) -> list[Any]:
    """Return what a stream told of its answer, delta by delta put together. at_text: called after the first text."""
    told = {"reasoning_content": "", "content": ""}
    reasons = []
    with httpx.stream("POST", url(group), json=body, timeout=ANSWER_LIMIT_S) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            if at_text is not None and has_text(event):
                at_text()
                at_text = None
            for choice in event["choices"]:
                for field in told:
                    told[field] += choice["delta"].get(field) or ""
                reasons.append(choice["finish_reason"])
    assert at_text is None
    return [told, [reason for reason in reasons if reason]]


def test_tokens_are_in_flight_while_a_stream_runs_and_none_after_it(group: Group) -> None:
    group.serving()
    eventually(lambda: in_flight_tokens(group) == 0)
    prompt, first, later, total = eventually(lambda: seen_to_grow(group))
    assert prompt < first < later <= total
    eventually(lambda: in_flight_tokens(group) == 0)


def seen_to_grow(group: Group) -> tuple[int, int, int, int] | None:
    """Return the tokens of a prompt, two numbers of those in flight while its answer is written, and all of them.

    None: the answer was whole before the second look, as it can be within a second.
    """
    body = question(stream=True, stream_options={"include_usage": True}, **LONG)
    with httpx.stream("POST", url(group), json=body, timeout=ANSWER_LIMIT_S) as response:
        lines = response.iter_lines()
        events = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {"))
        next(event for event in events if has_text(event))
        first = later = in_flight_tokens(group)
        while later and later == first:
            later = in_flight_tokens(group)
        usage = list(events)[-1]["usage"]
    return (usage["prompt_tokens"], first, later, usage["total_tokens"]) if first and later else None


def in_flight_tokens(group: Group) -> int | None:
    seen: int | None = group.leader.group()["in_flight_tokens"]
    return seen


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_stopped_at_work_is_named_and_the_request_answered(group: Group, rank: int) -> None:
    before = group.serving()["generation"]
    asked = asked_in_the_background(group)
    group.rank(rank).suspend()
    assert_hung(group.last_end(before), rank, HEARTBEAT_LIMIT_S)
    assert_whole(asked)


@in_one_pod
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_stopped_while_idle_is_named(group: Group, right_answer: str, rank: int) -> None:
    before = group.serving()["generation"]
    group.rank(rank).suspend()
    assert_hung(group.last_end(before), rank, HEARTBEAT_LIMIT_S)
    assert answer(group) == right_answer


def a_compile_process(group: Group) -> psutil.Process:
    """Have a grammar compiled and kept to; return the process that did it, which the zygote forked."""
    choice = ["yes", f"no {time.monotonic_ns()}"]  # a grammar that the server does not keep yet
    asked = question(structured_outputs={"choice": choice}, thinking={"type": "disabled"})
    response = httpx.post(url(group), json=asked, timeout=ANSWER_LIMIT_S)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] in choice
    (process,) = (child for child in group.leader.child("zygote").children() if child.name() == compilers.NAME)
    return process


@in_one_pod
def test_a_killed_zygote_is_replaced_with_all_that_it_forked(group: Group, right_answer: str) -> None:
    before = group.serving()["generation"]
    compiler = a_compile_process(group)
    group.pods[-1].child("zygote").kill()
    assert "zygote" in group.last_end(before)["message"]
    compiler.wait(LIMIT_S)
    assert answer(group) == right_answer
    a_compile_process(group)


def test_a_killed_server_is_replaced(group: Group, right_answer: str) -> None:
    before = group.serving()["generation"]
    compiler = a_compile_process(group)
    server = group.leader.child("server")
    server.kill()
    compiler.wait(LIMIT_S)
    assert group.served_again(server)["generation"] == before
    assert answer(group) == right_answer
    a_compile_process(group)


def test_a_pod_that_is_killed_comes_back(group: Group, right_answer: str) -> None:
    before = group.serving()["generation"]
    pod = group.pods[-1]
    pod.process.kill()
    pod.process.wait(LIMIT_S)
    pod.start()
    group.serving(after=before)
    assert answer(group) == right_answer


def test_sigterm_finishes_what_runs_and_exits_with_0(group: Group) -> None:
    """Last of its group: nothing serves after it."""
    group.serving()
    asked = asked_in_the_background(group)
    for pod in group.pods:  # as when the group is deleted: all pods at once
        pod.process.send_signal(signal.SIGTERM)
    eventually(lambda: group.leader.get("/readyz").status_code == 503)
    assert_whole(asked)
    assert [pod.process.wait(LIMIT_S) for pod in group.pods] == [0] * len(group.pods)


def test_a_checkpoint_without_a_tensor_is_named_with_it_and_backs_off(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve("builtin://glm-nano"), folder, ignore=shutil.ignore_patterns("*.py", ".*", "__pycache__"))
    weights = folder / "model.safetensors"
    header_length = int.from_bytes(weights.read_bytes()[:8], "little")
    data = weights.read_bytes()
    header = data[8 : 8 + header_length].replace(b'"model.norm.weight"', b'"model.nerm.weight"')
    weights.write_bytes(data[:8] + header + data[8 + header_length :])
    with running_group(tmp_path, ranks_per_pod=2, model=folder) as group:
        seen = eventually(
            lambda: (g := group.leader.group()) and g["consecutive_start_failures"] >= 2 and g["retry_in_s"] and g
        )
        cause = seen["generations"][-1]["cause"]
        assert (cause["reason"], cause["exit_code"]) == ("failed", 78)
        assert "model.norm.weight" in cause["message"]
