"""The HTTP server dies or hangs while streams run: the generation goes on, with weights and KV cache as they are."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import httpx
import pytest

from integration.metrics_text import series_values
from integration.pods import Group, eventually, running_group

ANSWER_LIMIT_S = 180.0
HEARTBEAT_LIMIT_S = 3.0
NUM_STREAMS = 4


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(tmp_path_factory.mktemp("group"), ranks_per_pod=2, heartbeat_limit_s=HEARTBEAT_LIMIT_S) as group:
        group.serving()
        yield group


def body(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "What is 12+30?"}]
    return {"model": "glm-nano", "messages": messages, "temperature": 0, "max_tokens": 256, **fields}


def url(group: Group) -> str:
    return f"http://{group.leader.host}:8000/v1/chat/completions"


def answer(group: Group) -> str:
    response = httpx.post(url(group), json=body(), timeout=ANSWER_LIMIT_S)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def read_until_cut(group: Group, has_begun: Event) -> str:
    """Stream an answer that is long; return its finish reason, nothing where its server was gone before."""
    reason = ""
    fields = {"stream": True, "max_tokens": 1900, "ignore_eos": True}
    with (
        suppress(httpx.TransportError),
        httpx.stream("POST", url(group), json=body(**fields), timeout=ANSWER_LIMIT_S) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:]).get("choices"):
                has_begun.set()
                reason = json.loads(line[6:])["choices"][0]["finish_reason"] or reason
    return reason


def gauge(group: Group, name: str) -> float | None:
    """Return what the server says, None while it says nothing."""
    values = series_values(group.leader.get("/metrics").text, name)
    return float(values[0]) if values else None


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_streams_end_with_their_server_and_the_generation_answers_before_the_next(group: Group, how: str) -> None:
    before = group.serving()
    right = answer(group)
    ranks = {number: group.rank(number).pid for number in (0, 1)}
    server = group.leader.child("server")
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        begun = [Event() for _ in range(NUM_STREAMS)]
        streams = [pool.submit(read_until_cut, group, has_begun) for has_begun in begun]
        assert all(has_begun.wait(ANSWER_LIMIT_S) for has_begun in begun)
        if how == "killed":
            server.kill()
        else:
            server.suspend()
        after = group.served_again(server)
        assert [stream.result() for stream in streams] == [""] * NUM_STREAMS
    assert (after["generation"], after["deaths_while_serving"]) == (
        before["generation"],
        before["deaths_while_serving"],
    )
    assert after["server_deaths"] == before["server_deaths"] + 1
    assert {number: group.rank(number).pid for number in (0, 1)} == ranks, "weights are not loaded again"
    assert answer(group) == right
    eventually(lambda: gauge(group, "glm_num_requests_running") == 0)
    assert eventually(lambda: group.leader.get("/readyz").status_code == 200)


def test_the_next_server_finds_what_prompts_before_it_have_left_in_the_cache(group: Group) -> None:
    group.serving()
    conversation = [{"role": "user", "content": "Add these numbers: " + ", ".join(map(str, range(100)))}]
    assert cached_tokens(group, conversation) == 0
    server = group.leader.child("server")
    server.kill()
    group.served_again(server)
    assert cached_tokens(group, conversation) > 100


def cached_tokens(group: Group, messages: list[dict[str, str]]) -> int:
    asked = body(messages=messages, max_tokens=4, ignore_eos=True)
    response = httpx.post(url(group), json=asked, timeout=ANSWER_LIMIT_S)
    assert response.status_code == 200, response.text
    return int(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
