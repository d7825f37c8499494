"""`glm-gateway` as a process that is allowed few open files: connections that ask for nothing do not use them up."""

import asyncio
from pathlib import Path

import httpx
import psutil

from integration.gateway_process import a_gateway_process, write_groups
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
