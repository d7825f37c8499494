"""A gateway that is told to stop waits for its requests by their number, and a group that leaves for its own."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from integration.gateway_process import GatewayProcess, a_gateway_process, write_groups
from integration.metrics_text import series_values
from integration.no_tls import NO_TLS
from integration.scripted_groups import DIE, FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, said, serving, too_late
from integration.server_world import DEADLINE_S

EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = [EVENTS_HEAD, b"b\r\ndata: one\n\n\r\n"]
BEGUN = [FRAMES_HEAD, opened(), said("one", 1)]
ASK = {"model": "chat", "prompt": "1", "stream": True}


@contextlib.asynccontextmanager
async def a_stream(gateway: GatewayProcess) -> AsyncIterator[AsyncIterator[str]]:
    """Begin a stream, and read its first event; return the lines behind it."""
    async with gateway.http.stream("POST", f"{gateway.url}/v1/completions", json=ASK) as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "data: one"
        assert await anext(lines) == ""
        yield lines


async def test_it_waits_for_what_is_under_way_and_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [[*BEGUN, STALL]])
    async with serving(group), a_gateway_process(tmp_path) as gateway:
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_stream(gateway):
            gateway.tell()
            await gateway.until("/readyz", "it serves what is under way (requests: 1)")
            last = await gateway.http.get(f"{gateway.url}/health")
            assert last.headers["connection"] == "close", "its client connects elsewhere from now on"
            await refused(gateway)
            gateway.tell()
            gateway.tell(signal.SIGINT)
            told = json.loads(await gateway.page("/state"))
            assert told["running"] == 1
            assert told["models"]["chat"]["groups"]["g0"]["in_flight"] == 1
        assert await gateway.ended() == 0
        assert "no request is left" in gateway.log


async def test_what_its_deadline_cuts_is_counted_and_it_ends(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [[*BEGUN, STALL]])
    async with serving(group), a_gateway_process(tmp_path, drainSeconds=0.5) as gateway:
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_stream(gateway) as lines:
            gateway.tell()
            told = [line async for line in lines]
        assert "gateway_stopped" in "".join(told), "the stream ends with a word, and not in its middle"
        async with asyncio.timeout(DEADLINE_S):
            await group.was_cut.wait()
        assert await gateway.ended() == 0
        assert "requests cut: 1, after 0.5 s" in gateway.log


async def test_what_a_client_used_that_does_not_read_is_written_down_before_the_end(tmp_path: Path) -> None:
    many = [said("x" * 65_536, number) for number in range(500)]  # more than sockets hold
    group, folder = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), *many, STALL]]), tmp_path / "usage"
    async with (
        serving(group),
        a_gateway_process(tmp_path, drainSeconds=0.2, usage={"folder": str(folder)}) as gateway,
    ):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        url, body = httpx.URL(gateway.url), json.dumps(ASK).encode()
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        gateway.tell()
        assert await gateway.ended() == 0
        writer.close()
        (entry,) = [json.loads(line) for each in folder.glob("*.jsonl") for line in each.read_text().splitlines()]
        assert (entry["outcome"], entry["prompt"]) == ("failed", 3)
        assert entry["answer"] > 0
        assert "requests cut: 1" in gateway.log
        assert "did not end" not in gateway.log


async def test_who_waits_for_a_group_is_told_that_it_waits_in_vain(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path, drainSeconds=0.1) as gateway:
        asking = asyncio.create_task(gateway.http.post(f"{gateway.url}/v1/completions", json=ASK | {"stream": False}))
        await gateway.until("/demand", '"held":1')
        gateway.tell()
        answer = await asking
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_stopped")
        assert answer.headers["retry-after"] == "1"
        assert await gateway.ended() == 0


async def test_a_group_that_leaves_gets_nothing_new_and_is_told_until_it_has_nothing(tmp_path: Path) -> None:
    group, other = ScriptedGroup("g0", [[*BEGUN, STALL]]), ScriptedGroup("g1", [[*BEGUN, STALL]])
    async with serving(group, other), a_gateway_process(tmp_path) as gateway:
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_stream(gateway):
            write_groups(tmp_path / "groups.json", {"g1": other.port})
            told = await gateway.until_state(lambda told: "g1" in told["models"]["chat"]["groups"])
            leaving = {"ready": False, "leaving": True, "plain": False, "in_flight": 1}
            assert told["models"]["chat"]["groups"]["g0"] == leaving
            async with a_stream(gateway):
                assert (len(group.asked), len(other.asked)) == (1, 1)
        told = await gateway.until_state(lambda told: "g0" not in told["models"]["chat"]["groups"])
        assert told["models"]["chat"]["groups"]["g1"]["in_flight"] == 0


CUTS = 'glm_gateway_drain_cuts_total{model="chat"}'


@contextlib.asynccontextmanager
async def a_drained_group(
    folder: Path, end: object, begun: Sequence[bytes] = BEGUN, **config: Any
) -> AsyncIterator[tuple[GatewayProcess, str]]:
    """Drain the first of two groups while it writes a stream, and let that end so; yield what its client was told."""
    is_late = asyncio.Event()
    group = ScriptedGroup("g0", [[*begun, is_late, end]])
    other = ScriptedGroup("g1", [[FRAMES_HEAD, opened(), said("two", 2), closed()]])
    async with serving(group, other), a_gateway_process(folder, **config) as gateway:
        write_groups(folder / "groups.json", {"g0": group.port})
        async with a_stream(gateway) as lines:
            write_groups(folder / "groups.json", {"g1": other.port})
            await gateway.until_state(lambda told: "g1" in told["models"]["chat"]["groups"])
            is_late.set()
            told = [line async for line in lines]
        yield gateway, "".join(told)


async def test_a_request_that_the_deadline_of_its_group_cut_is_counted(tmp_path: Path) -> None:
    async with a_drained_group(tmp_path, too_late(), continuation={"maxTimes": 0}) as (gateway, told):
        assert "group_lost" in told
        assert (await gateway.until_state(lambda told: told["running"] == 0))["cut"] == 1
        assert await gateway.values(CUTS) == [1.0]


async def test_a_request_that_went_on_elsewhere_was_not_cut(tmp_path: Path) -> None:
    async with a_drained_group(tmp_path, too_late()) as (gateway, told):
        assert told.endswith("data: twodata: [DONE]")
        assert (await gateway.until_state(lambda told: told["running"] == 0))["cut"] == 0
        assert await gateway.values(CUTS) == [0.0]


async def test_a_group_that_dies_has_cut_nothing_unless_it_was_leaving(tmp_path: Path) -> None:
    leaving, dying = tmp_path / "leaving", tmp_path / "dying"
    leaving.mkdir()
    dying.mkdir()
    async with a_drained_group(leaving, DIE, continuation={"maxTimes": 0}) as (gateway, _):
        await gateway.until_state(lambda told: told["running"] == 0)  # its client hears of the end before it is counted
        assert await gateway.values(CUTS) == [1.0], "as one that is killed when its time is over"
    group = ScriptedGroup("g0", [[*BEGUN, DIE]])  # and now one that serves
    async with serving(group), a_gateway_process(dying, continuation={"maxTimes": 0}) as gateway:
        write_groups(dying / "groups.json", {"g0": group.port})
        async with a_stream(gateway) as lines:
            assert "group_lost" in "".join([line async for line in lines])
        await gateway.until_value('glm_gateway_requests_total{api="openai",outcome="failed"}', 1.0)
        assert await gateway.values(CUTS) == [0.0]


async def test_a_stream_without_frames_that_broke_off_in_a_drain_is_counted(tmp_path: Path) -> None:
    async with a_drained_group(tmp_path, DIE, PLAIN) as (gateway, told):
        assert "error" in told
        assert (await gateway.until_state(lambda told: told["running"] == 0))["cut"] == 1


async def refused(gateway: GatewayProcess) -> None:
    """Wait until no connection is taken any more: who sends requests hears of the end a moment later."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await gateway.http.get(f"{gateway.url}/health")
            except httpx.ConnectError:
                return
            except (httpx.ReadError, httpx.RemoteProtocolError):
                pass  # it came as the listener closed, and nobody took it any more
            await asyncio.sleep(0.05)


async def test_no_request_fails_while_one_of_two_gateways_stops(tmp_path: Path) -> None:
    whole = [*BEGUN, said("two", 2), closed()]
    group = ScriptedGroup("g0", [whole] * 20_000)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    async with serving(group), a_gateway_process(folders[0]) as first, a_gateway_process(folders[1]) as second:
        for folder in folders:
            write_groups(folder / "groups.json", {"g0": group.port})
        ready, num_asked, is_over = [first, second], [0, 0], asyncio.Event()

        async def look() -> None:
            """Know who is ready a moment late, as a Service does."""
            while not is_over.is_set():
                for gateway in list(ready):
                    with contextlib.suppress(httpx.HTTPError):
                        if (await gateway.http.get(f"{gateway.management}/readyz")).status_code != 200:
                            ready.remove(gateway)
                await asyncio.sleep(0.5)

        async def go_on_asking(http: httpx.AsyncClient, number: int) -> None:
            while not is_over.is_set():
                gateway = ready[number % len(ready)]
                answer = await http.post(f"{gateway.url}/v1/completions", json=ASK)
                assert "data: two\n\ndata: [DONE]\n\n" in answer.text
                num_asked[gateway is second] += 1

        async with httpx.AsyncClient(timeout=DEADLINE_S, verify=NO_TLS) as http:
            tasks = [asyncio.create_task(look())]
            tasks += [asyncio.create_task(go_on_asking(http, number)) for number in range(8)]
            finished = 'glm_gateway_requests_total{api="openai",outcome="finished"}'
            await first.until("/metrics", lambda text: sum(series_values(text, finished)) >= 20)
            first.tell()
            assert await first.ended() == 0
            is_over.set()
            await asyncio.gather(*tasks)
        assert min(num_asked) >= 20
        assert "requests cut" not in first.log
