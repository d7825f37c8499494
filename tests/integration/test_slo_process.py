"""Promises put to a running group: the real supervisor and the real server, with ranks that answer without a model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from glm_operator.api import slo as api
from glm_operator.observe.report import slo_digest
from integration.metrics_text import series_value, series_values
from integration.pods import LIMIT_S, Group, PodProcess, eventually, running_group

TOKEN = "s3cret"
IDENTITY = {"namespace": "models", "deployment": "chat", "group": "chat-g0", "revision": "abc"}
THOUGHT = {"name": "thought", "match": {"thinking": "Enabled"}, "ttft": "47s", "e2e": "1h"}
GOLD = {"name": "gold", "match": {"header": {"name": "X-Tier", "value": "gold"}}, "ttft": "1ms"}
RECEIVED = "glm_requests_received_total"
JUDGED = "glm_slo_requests_total"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(
        tmp_path_factory.mktemp("group"),
        rank_target="integration.fake_ranks:answer",
        management_token=TOKEN,
        **IDENTITY,
    ) as group:
        group.serving()
        yield group


def body(*classes: dict[str, Any]) -> dict[str, object]:
    """Return what the operator puts for these classes of a spec."""
    return api.Slo.model_validate({"classes": list(classes)}).for_workers()


def put(pod: PodProcess, content: Any, token: str = TOKEN) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.put(f"http://{pod.host}:9090/slo", json=content, headers=headers, timeout=10.0)


def promise(group: Group, *classes: dict[str, Any]) -> str:
    response = put(group.leader, body(*classes))
    assert (response.status_code, response.json()) == (200, {"digest": slo_digest(body(*classes))})
    return str(response.json()["digest"])


def ask(group: Group, max_tokens: int = 3, **headers: str) -> None:
    """Have a chat answered to its end."""
    request = {"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": max_tokens}
    url = f"http://{group.leader.host}:8000/v1/chat/completions"
    response = httpx.post(url, json=request, headers=headers, timeout=LIMIT_S)
    assert response.status_code == 200, response.text


def metrics(group: Group) -> str:
    """Return the page with the server's part in it."""

    def look() -> str:
        text = group.leader.get("/metrics").text
        return text if series_value(text, "glm_server_answering") else ""

    return eventually(look)


def value(group: Group, series: str) -> float:
    return series_value(metrics(group), series)


def of_class(name: str, slo_class: str, **labels: str) -> str:
    return name + "{" + ",".join(f'{key}="{text}"' for key, text in {"slo_class": slo_class, **labels}.items()) + "}"


def test_promises_take_effect_while_requests_run_and_end_nothing(group: Group) -> None:
    promise(group)
    generation, before = group.serving()["generation"], value(group, of_class(RECEIVED, "default"))
    with ThreadPoolExecutor() as threads:
        running = threads.submit(ask, group, 200)
        eventually(lambda: value(group, of_class(RECEIVED, "default")) == before + 1)
        digest = promise(group, GOLD, THOUGHT)
        assert not running.done()
        text = metrics(group)
        for slo_class in ("gold", "thought"):
            assert series_value(text, of_class(RECEIVED, slo_class)) == 0
            assert series_values(text, of_class(JUDGED, slo_class)) == [0, 0]
        for edge in ("23.5", "47.0", "94.0"):
            buckets = of_class("glm_time_to_first_token_seconds_bucket", "thought", le=edge)
            assert series_values(text, buckets) == [0], "an edge at the promise, its half and its double"
        ask(group)
        ask(group, **{"x-tier": "gold"})
        running.result()
    text = metrics(group)
    received = {name: series_value(text, of_class(RECEIVED, name)) for name in ("default", "thought", "gold")}
    assert received == {"default": before + 1, "thought": 1, "gold": 1}
    assert series_value(text, of_class(JUDGED, "thought", met="true")) == 1
    assert series_value(text, of_class(JUDGED, "gold", met="false")) == 1, "no answer begins within a millisecond"
    assert (group.leader.group()["slo_digest"], group.serving()["generation"]) == (digest, generation)


def test_who_lacks_the_token_or_sends_nonsense_changes_nothing(group: Group) -> None:
    digest = promise(group, THOUGHT)
    assert put(group.leader, body(GOLD), token="wrong").status_code == 401
    refused = put(group.leader, {"classes": [{"name": "default", "thresholds_s": {"ttft": 1}, "objective": 0.9}]})
    assert (refused.status_code, "is taken" in refused.text) == (422, True)
    assert group.leader.group()["slo_digest"] == digest
    assert series_values(metrics(group), of_class(RECEIVED, "gold")) == []


def test_a_server_that_starts_again_has_the_promises(group: Group) -> None:
    digest = promise(group, GOLD)
    ask(group, **{"x-tier": "gold"})
    group.serving()
    server = group.leader.child("server")
    server.kill()
    assert group.served_again(server)["slo_digest"] == digest
    assert value(group, of_class(RECEIVED, "gold")) == 0
    ask(group, **{"x-tier": "gold"})
    assert value(group, of_class(RECEIVED, "gold")) == 1


def test_a_supervisor_that_starts_again_in_its_pod_has_the_promises(group: Group) -> None:
    digest = promise(group, GOLD)
    before = group.serving()["generation"]
    assert group.leader.stop() == 0
    group.leader.start()
    assert group.serving(after=before)["slo_digest"] == digest
    ask(group, **{"x-tier": "gold"})
    assert value(group, of_class(RECEIVED, "gold")) == 1


def test_every_series_of_the_page_says_whose_it_is(group: Group) -> None:
    promise(group, GOLD, THOUGHT)
    lines = [line for line in metrics(group).splitlines() if not line.startswith("#")]
    whose = [f'{name}="{text}"' for name, text in IDENTITY.items()]
    assert [line for line in lines if not all(label in line for label in whose)] == []
    series = [line.rpartition(" ")[0] for line in lines]
    assert len(series) == len(set(series)), "a series appears once"


def test_since_when_the_group_serves_is_told(group: Group) -> None:
    group.serving()
    text = metrics(group)
    assert series_value(text, "glm_group_serving_timestamp_seconds") > 1.7e9
    assert series_value(text, "glm_group_starting_timestamp_seconds") == 0
    assert series_value(text, "glm_group_draining") == 0
    assert series_value(text, "glm_kv_cache_tokens") == 512 * 16
    assert series_value(text, 'vllm:cache_config_info{block_size="16",num_gpu_blocks="512"}') == 1


def test_a_server_that_does_not_answer_has_no_series_instead_of_zeros(group: Group) -> None:
    value(group, of_class(RECEIVED, "default"))
    server = group.leader.child("server")
    server.suspend()
    try:
        text = group.leader.get("/metrics").text
    finally:
        server.resume()
    assert series_values(text, RECEIVED) == []
    assert series_value(text, "glm_server_answering") == 0
    assert series_value(text, 'glm_group_state{state="serving"}') == 1


def test_a_pod_that_follows_takes_no_promises_and_tells_only_of_itself(tmp_path: Path) -> None:
    with running_group(
        tmp_path,
        pods=2,
        rank_target="integration.fake_ranks:rest",
        server_target="integration.fake_server:run_server",
        management_token=TOKEN,
        **IDENTITY,
    ) as group:
        group.serving()
        follower = group.pods[1]
        response = put(follower, body(GOLD))
        sentence = f"promises are put to the leading pod, {group.leader.host}; this is pod 1"
        assert (response.status_code, response.text) == (404, sentence + "\n")
        text = follower.get("/metrics").text
        assert series_value(text, 'glm_follower_connected{group="chat-g0",pod_index="1"}') == 1
        assert series_values(text, "glm_group_state") == []
