"""`glm-gateway` as a process that is allowed few open files: connections that ask for nothing do not use them up."""

import asyncio
from pathlib import Path

import httpx
import psutil

from integration.gateway_process import a_gateway_process, model_of, write_groups
from integration.no_tls import NO_TLS
from integration.scripted_groups import FRAMES_HEAD, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S


def limited(option: str) -> list[str]:
    """Return a command that runs what stands behind it with such a limit of open files."""
    return ["sh", "-c", f'ulimit {option} && exec "$@"', "sh"]


async def test_the_soft_limit_that_it_starts_with_holds_nothing_back(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path, by=limited("-S -n 256")) as gateway:
        soft, hard = psutil.Process(gateway.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536)
        assert f"files that may be open: {soft}" in gateway.log


async def test_idle_connections_never_use_up_its_files(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path, by=limited("-n 200")) as gateway:
        url = httpx.URL(gateway.url)
        idle = [await asyncio.open_connection(url.host, url.port) for _ in range(300)]
        try:
            async with asyncio.timeout(DEADLINE_S), httpx.AsyncClient() as newcomer:
                assert await idle[0][0].read() == b"", "the one that was idle longest gave way"
                assert (await newcomer.get(f"{gateway.url}/v1/models")).status_code == 200
            assert await gateway.page("/readyz") == "ok\n"
            assert psutil.Process(gateway.process.pid).num_fds() < 100
            assert "Too many open files" not in gateway.log
        finally:
            for _, writer in idle:
                writer.close()


async def test_connections_to_groups_that_nobody_uses_make_room_for_those_to_others(tmp_path: Path) -> None:
    """As many clients as there may be ask one group after the other, each time all at once."""
    num_clients, gates = 30, [asyncio.Event() for _ in range(8)]
    scripts = [[[gate, FRAMES_HEAD, opened(), said("one", 1), closed()]] * num_clients for gate in gates]
    groups = [ScriptedGroup(f"g{number}", list(script)) for number, script in enumerate(scripts)]
    async with serving(*groups):
        for group in groups:
            write_groups(tmp_path / f"{group.name}.json", {group.name: group.port})
        models = [model_of(group.name, tmp_path / f"{group.name}.json") for group in groups]
        limits = httpx.Limits(max_connections=num_clients, max_keepalive_connections=num_clients)
        async with (
            a_gateway_process(tmp_path, by=limited("-n 200"), models=models) as gateway,
            httpx.AsyncClient(base_url=gateway.url, limits=limits, timeout=DEADLINE_S, verify=NO_TLS) as http,
        ):
            for group, gate in zip(groups, gates, strict=True):
                ask = {"model": group.name, "prompt": "1", "stream": True}
                asking = [asyncio.create_task(http.post("/v1/completions", json=ask)) for _ in range(num_clients)]
                async with asyncio.timeout(DEADLINE_S):
                    while len(group.asked) < num_clients and not any(each.done() for each in asking):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                gate.set()
                assert {(await each).status_code for each in asking} == {200}
