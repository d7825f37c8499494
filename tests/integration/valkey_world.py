"""A real Redis or Valkey of a test's own, on a socket in its folder or on a port."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

SERVER = shutil.which("valkey-server") or shutil.which("redis-server")
DEADLINE_S = 20.0


@dataclass
class Valkey:
    """folder: short enough for the path of a socket."""

    folder: Path
    options: Sequence[str] = ("--port", "0")
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def socket(self) -> str:
        return str(self.folder / "v.sock")

    def client(self, timeout_s: float = 5.0) -> Redis:
        return Redis(unix_socket_path=self.socket, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0), protocol=2)

    def begin(self) -> None:
        """Start the server, without its disk: who starts again has nothing."""
        if SERVER is None:
            pytest.skip("needs valkey-server or redis-server")
        command = [SERVER, "--unixsocket", self.socket, "--dir", str(self.folder), "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def until_ready(self) -> None:
        client = self.client()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                await client.ping()
                break
            except (RedisError, OSError):
                assert time.monotonic() < deadline, "the server does not answer"
                await asyncio.sleep(0.02)
        await client.aclose()
