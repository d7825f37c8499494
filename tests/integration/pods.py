"""Pods of a group as processes of this machine, each on a loopback address of its own, and questions to them."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from glm_worker.supervisor.evidence.watchdog import LONGEST_TICK_S
from glm_worker.supervisor.supervisor import RANK_TARGET, SERVER_TARGET
from integration.no_tls import NO_TLS
from integration.pauses import Pauses

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0  # an upper bound for anything here: on a busy machine torch alone has taken 80 s to import

Value = TypeVar("Value")


def eventually(look: Callable[[], Value]) -> Value:
    """Return the first true value that look returns; fail with the last one when there is none in time."""
    deadline, pauses = time.monotonic() + LIMIT_S, Pauses()
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {LIMIT_S} s; last seen: {value!r}")
        pauses.pause()


def assert_hung(cause: dict[str, Any], rank: int, limit_s: float) -> None:
    """Fail unless this rank was found hung within the limit and 5 s, in time during which its supervisor ran.

    It may show less than the limit: the one that stood still for the limit may be a rank that waited for it.
    """
    assert (cause["rank"], cause["reason"]) == (rank, "hung")
    still = re.search(r"has stood still for (\d+\.\d) s", cause["message"])
    assert still, cause
    assert limit_s - LONGEST_TICK_S <= float(still[1]) < limit_s + 5


def loopback_address() -> str:
    """Return an address that no other test uses: all of 127/8 is this machine."""
    return f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"


class PodProcess:
    """One `glm-worker serve`."""

    def __init__(self, index: int, host: str, environment: dict[str, str], log: Path, targets: tuple[str, str]) -> None:
        self.index = index
        self.host = host
        self.environment = environment
        self._targets = targets
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "integration.pod_main", str(os.getpid()), *self._targets],
                env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT / "tests")},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def get(self, path: str) -> httpx.Response:
        """Ask the management port."""
        return httpx.get(f"http://{self.host}:9090{path}", timeout=10.0, verify=NO_TLS)

    def group(self) -> dict[str, Any]:
        """Return what /group says; nothing while the port is not open. A pod that has exited will never open it."""
        try:
            return dict(self.get("/group").json())
        except httpx.TransportError:
            code = self.process.poll()
            assert code is None, f"pod {self.index} has exited with {code}:\n{self.log.read_text()[-6000:]}"
            return {}

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the rank processes by rank."""
        found = {}
        for process in self.descendants():
            try:
                name = process.name()
            except psutil.NoSuchProcess:
                continue
            if name.startswith("glm-rank-"):
                found[int(name.removeprefix("glm-rank-"))] = process
        return found

    def child(self, name: str) -> psutil.Process:
        """Return the zygote or the server."""
        return next(process for process in self.process.children() if process.name() == f"glm-{name}")

    def descendants(self) -> list[psutil.Process]:
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


class Group:
    """The pods of one group. Pod 0 leads."""

    def __init__(self, pods: list[PodProcess], run_dir: Path) -> None:
        self.pods = pods
        self.run_dir = run_dir

    @property
    def leader(self) -> PodProcess:
        return self.pods[0]

    def serving(self, *, after: str | None = None) -> dict[str, Any]:
        """Wait until a generation serves (another than the one named); return what /group shows."""

        def look() -> dict[str, Any]:
            group = self.leader.group()
            return group if group.get("state") == "serving" and group["generation"] != after else {}

        return self._waited(look)

    def served_again(self, server: psutil.Process) -> dict[str, Any]:
        """Wait until this server is known to be dead and another one serves; return what /group shows."""

        def look() -> dict[str, Any]:
            group = self.leader.group()
            is_known = f"process {server.pid})" in (group.get("last_server_death") or "")
            return group if is_known and group.get("state") == "serving" else {}

        return self._waited(look)

    def last_end(self, generation: str) -> dict[str, Any]:
        """Wait until this generation has ended; return its cause."""

        def look() -> dict[str, Any]:
            ended = [
                each
                for each in self.leader.group().get("generations", [])
                if each["id"] == generation and each["cause"]
            ]
            return ended[0]["cause"] if ended else {}

        return self._waited(look)

    def rank(self, number: int) -> psutil.Process:
        """Return the process of a rank, wherever it runs."""

        def look() -> list[psutil.Process]:
            return [process for pod in self.pods for rank, process in pod.ranks().items() if rank == number]

        return eventually(look)[0]

    def _waited(self, look: Callable[[], Value]) -> Value:
        try:
            return eventually(look)
        except AssertionError as error:
            logs = "\n".join(f"--- pod {pod.index}\n{pod.log.read_text()[-6000:]}" for pod in self.pods)
            raise AssertionError(f"{error}\n{logs}") from None


@contextmanager
def running_group(
    folder: Path,
    *,
    pods: int = 1,
    rank_target: str = RANK_TARGET,
    server_target: str = SERVER_TARGET,
    **settings: object,
) -> Iterator[Group]:
    """Run a group; at the end nothing of it may be left. Its logs go to folder."""
    run_dir = Path(tempfile.mkdtemp(prefix="glm-"))  # short: the path of a socket has 107 bytes at most
    hosts = [loopback_address() for _ in range(pods)]
    values = {
        "model": "builtin://glm-nano",
        "run_dir": run_dir,
        # torch's store listens on every address; `glm local` takes the first free block from 20032 on
        "rendezvous_port": random.randrange(24064, 29000, 64),
        "drain_accept_s": 0,
        "backoff_base_s": 0.2,
        **settings,
    }
    processes: list[PodProcess] = []
    for index, host in enumerate(hosts):
        own = {"num_pods": pods, "pod_index": index, "host": host, "leader_host": hosts[0], **values}
        environment = {f"GLM_{name.upper()}": str(value) for name, value in own.items()}
        processes.append(
            PodProcess(index, host, environment, folder / f"pod-{index}.log", (rank_target, server_target))
        )
    group = Group(processes, run_dir)
    seen: set[psutil.Process] = set()
    try:
        yield group
    finally:
        for pod in processes:
            seen.update(pod.descendants())
            if pod.process.is_running():
                pod.process.kill()
            pod.process.wait(LIMIT_S)
    eventually(lambda: not any(process.is_running() for process in seen))
    shutil.rmtree(run_dir)
