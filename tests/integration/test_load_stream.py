"""GET /load of real pods and of a real server: what a gateway hears of a group, from its first moment to its last."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from glm_worker.messages import LoadChanged, WatchLoad
from glm_worker.supervisor.management.load import MAX_LISTENERS
from integration.fake_server import IN_FLIGHT_TOKENS
from integration.no_tls import NO_TLS
from integration.pods import LIMIT_S, Group, PodProcess, eventually, running_group
from integration.server_world import LIMITS, ServerWorld, a_server

REST = "integration.fake_ranks:rest"
COMPUTE = "integration.fake_ranks:compute"
SERVER = "integration.fake_server:run_server"
Line = dict[str, Any]


@contextmanager
def listening(pod: PodProcess) -> Iterator[Iterator[Line]]:
    url = f"http://{pod.host}:9090/load"
    with httpx.stream("GET", url, timeout=LIMIT_S, verify=NO_TLS) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "application/x-ndjson"
        yield map(json.loads, answer.iter_lines())


def until(lines: Iterator[Line], is_it: Callable[[Line], bool]) -> Line:
    """Return the first line that is it."""
    deadline = time.monotonic() + LIMIT_S
    for line in lines:
        if is_it(line):
            return line
        assert time.monotonic() < deadline, line
    raise AssertionError("the stream ended")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(
        tmp_path_factory.mktemp("group"), rank_target=REST, server_target=SERVER, heartbeat_limit_s=60.0
    ) as found:
        found.serving()
        yield found


def test_a_group_tells_what_its_server_says_and_what_it_is(group: Group) -> None:
    with listening(group.leader) as lines:
        line = until(lines, lambda each: each["in_flight_tokens"] is not None)
    assert (line["ready"], line["leaving"], line["in_flight_tokens"]) == (True, False, IN_FLIGHT_TOKENS)
    assert (line["incarnation"], line["prefill_tokens_per_s"]) == (group.serving()["generation"], None)
    assert line["start_s"] > 0
    assert line["fingerprint"] == "of the fake server"


def test_the_incarnation_is_another_one_when_the_ranks_are(group: Group) -> None:
    before = group.serving()["generation"]
    with listening(group.leader) as lines:
        assert next(lines)["incarnation"] == before
        group.leader.ranks()[0].kill()
        after = until(lines, lambda each: each["incarnation"] != before)["incarnation"]
        until(lines, lambda each: each["ready"])
    assert group.serving(after=before)["generation"] == after


def test_while_the_server_hangs_its_numbers_are_null_and_no_zero(group: Group) -> None:
    group.serving()
    server = group.leader.child("server")
    with listening(group.leader) as lines:
        until(lines, lambda each: each["in_flight_tokens"] is not None)
        server.suspend()
        eventually(lambda: server.status() == psutil.STATUS_STOPPED)
        line = until(lines, lambda each: each["in_flight_tokens"] is None)
        assert {line[name] for name in ("tokens_to_prefill", "kv_usage", "num_waiting", "fingerprint")} == {None}
        server.resume()
        until(lines, lambda each: each["in_flight_tokens"] == IN_FLIGHT_TOKENS)


def test_a_new_server_is_told_that_somebody_listens(group: Group) -> None:
    with listening(group.leader) as lines:
        until(lines, lambda each: each["in_flight_tokens"] is not None)
        server = group.leader.child("server")
        server.kill()
        group.served_again(server)
        with listening(group.leader) as later:  # its first line is of now; the first listener's may be of before
            until(later, lambda each: each["in_flight_tokens"] is not None)


def test_the_next_listener_after_the_last_place_gets_503_and_hears_when_to_ask_again(group: Group) -> None:
    group.serving()
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(group.leader)) for _ in range(MAX_LISTENERS)]
        assert all(next(lines)["ready"] for lines in streams)
        refused = group.leader.get("/load")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert group.leader.get("/livez").status_code == 200

    def is_free() -> bool:
        with httpx.stream("GET", f"http://{group.leader.host}:9090/load", timeout=LIMIT_S, verify=NO_TLS) as answer:
            return answer.status_code == 200

    eventually(is_free)


def test_a_listener_whose_end_is_gone_loses_its_place(group: Group) -> None:
    group.serving()
    for _ in range(MAX_LISTENERS + 1):
        with socket.create_connection((group.leader.host, 9090)) as sock:
            sock.sendall(b"GET /load HTTP/1.1\r\nhost: pod\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_draining_group_says_so_and_its_streams_end_with_it(tmp_path: Path) -> None:
    server = "integration.fake_server:drained_once_answered"
    with running_group(tmp_path, rank_target=REST, server_target=server, drain_accept_s=0.0) as group:
        group.serving()
        with listening(group.leader) as lines:
            assert not next(lines)["leaving"]
            group.leader.process.terminate()
            line = until(lines, lambda each: each["leaving"])
            assert not line["ready"]
            (group.run_dir / "answered").touch()
            assert all(each["leaving"] for each in lines), "and they end, cleanly"
        assert group.leader.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("told", [0, 1], ids=["its leading pod", "another pod of it"])
def test_a_group_of_which_a_pod_is_told_to_stop_leaves_within_a_look_and_finishes_what_it_has(
    tmp_path: Path, told: int
) -> None:
    server = "integration.fake_server:drained_once_answered"
    with running_group(
        tmp_path, pods=2, rank_target=COMPUTE, server_target=server, drain_accept_s=0.0, readiness_lag_s=0.0
    ) as group:
        generation = group.serving()["generation"]
        with listening(group.leader) as lines:
            assert not until(lines, lambda each: each["ready"])["leaving"]
            group.pods[told].process.terminate()
            told_s = time.monotonic()
            line = until(lines, lambda each: each["leaving"])
            assert time.monotonic() - told_s < 2.0  # the kubelet takes 3 s to see what the readiness probe says
            assert not line["ready"]
            still = group.leader.group()
            assert (still["state"], still["generation"]) == ("draining", generation), "its ranks compute on"
            assert group.pods[told].process.poll() is None
            (group.run_dir / "answered").touch()
            assert group.pods[told].process.wait(LIMIT_S) == 0
            if told == 1:  # the group waits for that pod to come back, and is asked for nothing meanwhile
                line = until(lines, lambda each: not each["leaving"])
                assert not line["ready"]


async def watched(world: ServerWorld) -> LoadChanged:
    world._control.send(WatchLoad(is_on=True))
    return await world.told(LoadChanged)


async def changed(world: ServerWorld, is_it: Callable[[LoadChanged], bool]) -> LoadChanged:
    while not is_it(load := await world.told(LoadChanged)):
        pass
    return load


async def test_a_server_tells_its_load_from_before_the_first_generation_to_a_computed_prompt(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        load = await watched(world)
        assert (load.num_running, load.kv_usage, load.kv_tokens, load.prefill_tokens_per_s) == (None,) * 4
        assert (load.in_flight_tokens, load.num_waiting, load.model) == (0, 0, "glm-nano")
        assert load.fingerprint

        engine = await world.start_generation("g-1")
        await engine.ready()
        load = await serving_load(world)
        assert (load.num_running, load.kv_usage) == (0, 0.0)
        assert load.kv_tokens == LIMITS.num_blocks * LIMITS.block_size

        answer = world.openai.completions.create(model="glm-nano", prompt="count to ten", max_tokens=4, stream=True)
        async with await answer as stream:
            request = await engine.next_request()
            num_prompt = len(request.prompt_token_ids)
            load = await changed(world, lambda each: each.num_waiting == 1)
            assert (load.in_flight_tokens, load.tokens_to_prefill) == (num_prompt, num_prompt)
            await engine.step(scheduled=[request.request_id], prefill_tokens=num_prompt, prefill_s=0.01)
            load = await changed(world, lambda each: each.num_waiting == 0)
            assert (load.tokens_to_prefill, load.num_running) == (0, 1)
            assert load.prefill_tokens_per_s == pytest.approx(num_prompt / 0.01)
            await stream.close()


async def serving_load(world: ServerWorld) -> LoadChanged:
    """Return the first load of a generation; what else the server says meanwhile is passed over."""
    while True:
        message = await world._control.receive()
        if isinstance(message, LoadChanged) and message.num_running is not None:
            return message
