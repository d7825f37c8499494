"""`glm-gateway` as a process: its file, which a test may change, its two ports, its log."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from integration.free_ports import free_port
from integration.metrics_text import series_values
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S

TOKEN = "token-of-the-gateway"
SECRET = "0f" * 16

Json = dict[str, Any]


def write_groups(path: Path, ports: dict[str, int], **fields: Any) -> None:
    """Write a file of groups, by name, as it is to be written. fields: of each."""
    groups = [{"name": name, "host": "127.0.0.1", "port": port, **fields} for name, port in ports.items()]
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"groups": groups}))
    part.rename(path)


def model_of(name: str, groups: Path, **fields: Any) -> Json:
    """Return a model as the gateway's file has it."""
    return {"name": name, "groups": {"file": str(groups)}, **fields}


@dataclass
class GatewayProcess:
    """config: the file as it was last written."""

    process: subprocess.Popen[bytes]
    url: str
    management: str
    folder: Path
    config: Json
    http: httpx.AsyncClient

    def write(self, **changes: Any) -> None:
        """Change fields of the file; it is another one at once."""
        self.config |= changes
        self.write_text(json.dumps(self.config))

    def write_text(self, text: str) -> None:
        part = self.folder / "gateway.part"
        part.write_text(text)
        part.rename(self.folder / "gateway.json")

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; return its status."""
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    async def until_log(self, sign: str) -> None:
        """Wait until the log has a sign in it."""
        async with asyncio.timeout(DEADLINE_S):
            while sign not in self.log:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)

    async def page(self, path: str) -> str:
        return (await self.http.get(f"{self.management}{path}")).text

    async def until(self, path: str, is_so: Callable[[str], bool] | str) -> str:
        """Wait until a page of the management port is as a test wants it, or has a sign in it; return the page."""
        told = ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while self.process.poll() is None:
                    with contextlib.suppress(httpx.HTTPError):
                        told = await self.page(path)
                        if is_so in told if isinstance(is_so, str) else is_so(told):
                            return told
                    await asyncio.sleep(0.05)
                raise AssertionError(f"the gateway has ended with {self.process.returncode}: {self.log[-2000:]}")
        except TimeoutError:
            raise AssertionError(f"{path} did not come to be as it should; it says: {told}") from None

    async def values(self, series: str) -> list[float]:
        """Return the values of the series that match, as metrics_text.series_values does."""
        return series_values(await self.page("/metrics"), series)

    async def until_value(self, series: str, value: float) -> None:
        """Wait until the series, which is the only one that matches, has a value."""
        await self.until("/metrics", lambda text: series_values(text, series) == [value])

    async def until_state(self, is_so: Callable[[Json], bool]) -> Json:
        """Wait until GET /state is as a test wants it; return it."""
        told: Json = json.loads(await self.until("/state", lambda text: is_so(json.loads(text))))
        return told


@contextlib.asynccontextmanager
async def a_gateway_process(folder: Path, *, by: Sequence[str] = (), **config: Any) -> AsyncIterator[GatewayProcess]:
    """Run a gateway by a file with these fields, and what a test need not say; ready when this is entered.

    by: a command that runs what stands behind it.
    """
    config = {
        "host": "127.0.0.1",
        "port": free_port(),
        "managementPort": free_port(),
        "auth": {"mode": "None"},
        "models": [model_of("chat", folder / "groups.json")],
        **config,
    }
    async with httpx.AsyncClient(timeout=DEADLINE_S, verify=NO_TLS) as http:
        path = folder / "gateway.json"
        path.write_text(json.dumps(config))
        with (folder / "gateway.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - lives as long as this
                [*by, sys.executable, "-m", "glm_gateway.main", "--config", str(path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GLM_GATEWAY_TOKEN": TOKEN, "GLM_GATEWAY_SECRET": SECRET},
            )
        at = f"http://{config['host']}"
        url, management = f"{at}:{config['port']}", f"{at}:{config['managementPort']}"
        found = GatewayProcess(process, url, management, folder, config, http)
        try:
            await found.until("/readyz", "ok")
            yield found
        finally:
            process.kill()
            process.wait()
