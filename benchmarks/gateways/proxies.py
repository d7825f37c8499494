"""The programs under test, each before the same backend, each on the same core: how they are started and stopped.

All are set up as their users would, with one process, for there is one core. Ours and LiteLLM's ask for a key. While
one is measured the others are stopped by a signal, so that they take nothing from it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from gateways.wire import MODEL

from glm_gateway.access.keys import item_of, new_key

KEY = "sk-benchmark"
PEERS = Path(__file__).resolve().parents[2] / ".venv-peers/bin"
HOW_TO_GET_PEERS = "run `make peers`"
START_S = 90.0
ALREADY_S = 0.5  # after a program goes on: for timers that are late

BACKEND_CORE, PROXY_CORE = 0, 1


@dataclass(frozen=True)
class Where:
    """folder: for files of the program. port: it is to listen on. spare: another free port. backends: ports."""

    folder: Path
    port: int
    spare: int
    backends: tuple[int, ...]


Command = Callable[[Where], tuple[list[str], dict[str, str]]]
"""Writes what a program reads; returns its command line, and what it needs in the environment."""


def ours(where: Where) -> tuple[list[str], dict[str, str]]:
    keys = where.folder / "keys"
    keys.mkdir()
    key = new_key(KEY, datetime.now(UTC), group=None, role=None, expires=None)
    (keys / "alice").write_bytes(item_of(key))
    groups = [
        {"name": f"nano-g{place}", "host": "127.0.0.1", "port": port, "management_port": port}
        for place, port in enumerate(where.backends)
    ]
    (where.folder / "groups.json").write_text(json.dumps({"groups": groups}))
    plenty = 10**12
    config = {
        "host": "127.0.0.1",
        "port": where.port,
        "managementPort": where.spare,
        "auth": {"mode": "Keys", "keysFolder": str(keys)},
        "models": [{"name": MODEL, "groups": {"file": str(where.folder / "groups.json")}}],
        "quotas": {  # enough of everything, and counted all the same
            "default": {
                "requestsPerMinute": plenty,
                "promptTokensPerMinute": plenty,
                "answerTokensPerMinute": plenty,
                "monthlyBudget": {"tokens": plenty},
            }
        },
        "usage": {"folder": str(where.folder / "usage")},
        "drainSeconds": 1,
    }
    path = where.folder / "gateway.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "glm_gateway.main", "--config", str(path)]
    return command, {"GLM_GATEWAY_TOKEN": "token-of-the-benchmark", "GLM_GATEWAY_SECRET": "0f" * 16}


def litellm(where: Where) -> tuple[list[str], dict[str, str]]:
    models = [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": f"http://127.0.0.1:{port}/v1",
                "api_key": "none",
            },
        }
        for port in where.backends
    ]
    path = where.folder / "litellm.yaml"
    path.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    command = [str(PEERS / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(where.port)]
    return command, {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def smg(where: Where, policy: str = "cache_aware") -> tuple[list[str], dict[str, str]]:
    return [str(PEERS / "smg"), "launch", *_router_arguments(where, policy), "--disable-tokenizer-autoload"], {}


def vllm_router(where: Where, policy: str = "cache_aware") -> tuple[list[str], dict[str, str]]:
    return [str(PEERS / "vllm-router"), *_router_arguments(where, policy)], {}


def _router_arguments(where: Where, policy: str) -> list[str]:
    urls = [f"http://127.0.0.1:{port}" for port in where.backends]
    own = ["--host", "127.0.0.1", "--port", str(where.port), "--prometheus-port", str(where.spare)]
    return ["--worker-urls", *urls, *own, "--policy", policy, "--log-level", "error"]


def nginx(where: Where) -> tuple[list[str], dict[str, str]]:
    servers = "".join(f"server 127.0.0.1:{port};" for port in where.backends)
    path = where.folder / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {where.folder}/nginx.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
          access_log off; client_body_temp_path {where.folder}/body; proxy_temp_path {where.folder}/proxy;
          fastcgi_temp_path {where.folder}/f; uwsgi_temp_path {where.folder}/u; scgi_temp_path {where.folder}/s;
          client_max_body_size 0; client_body_buffer_size 1m; keepalive_requests 1000000000;
          upstream groups {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
          server {{
            listen 127.0.0.1:{where.port} backlog=4096;
            location / {{
              proxy_pass http://groups; proxy_http_version 1.1; proxy_set_header Connection "";
              proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
            }}
          }}
        }}"""
    )
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(path), "-e", "stderr"], {}


PROXIES: dict[str, Command] = {"ours": ours, "litellm": litellm, "smg": smg, "vllm-router": vllm_router, "nginx": nginx}


@dataclass
class Running:
    """A program that runs. port: where it takes requests; of bare, the backend's. process: None for bare."""

    name: str
    port: int
    process: psutil.Process | None
    log: Path | None = None
    _is_stopped: bool = field(default=False, repr=False)

    def tree(self) -> list[psutil.Process]:
        if self.process is None or not self.process.is_running():
            return []
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the seconds of CPU that it has used so far, with all of its processes."""
        return sum(times.user + times.system for times in (each.cpu_times() for each in self.tree()))

    def rss_bytes(self) -> int:
        return sum(each.memory_info().rss for each in self.tree())

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)
        self._is_stopped = True

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Let it go on meanwhile."""
        self._signal(signal.SIGCONT)
        if self._is_stopped:
            time.sleep(ALREADY_S)
        try:
            yield
        finally:
            self.stop()

    def end(self) -> None:
        tree = self.tree()
        self._signal(signal.SIGCONT)
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        _, alive = psutil.wait_procs(tree, timeout=10)
        for each in alive:
            each.kill()

    def _signal(self, number: signal.Signals) -> None:
        for each in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)


def why_not(name: str) -> str:
    """Return why a program cannot be had here; empty: it can."""
    if name == "nginx":
        return "" if shutil.which("nginx") or Path("/usr/sbin/nginx").exists() else "nginx is not installed"
    if name in ("ours", "bare"):
        return ""
    return "" if (PEERS / name).exists() else f"{PEERS / name} is not there; {HOW_TO_GET_PEERS}"


def start(name: str, command: Command, backends: tuple[int, ...], folder: Path) -> Running:
    """Start a program on the core of proxies, and return when it takes requests. Raises RuntimeError with its log."""
    folder.mkdir(parents=True)
    where = Where(folder, free_port(), free_port(), backends)
    line, environment = command(where)
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(PROXY_CORE), *line],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    running = Running(name, where.port, psutil.Process(process.pid), log)
    deadline = time.monotonic() + START_S
    while not _answers(where.port):
        if process.poll() is not None or time.monotonic() > deadline:
            running.end()
            raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
    return running


def start_backend(port: int) -> psutil.Process:
    """Start the fake group, on this process's core."""
    script = Path(__file__).with_name("backend.py")
    process = subprocess.Popen([sys.executable, str(script), "--port", str(port)], env=_with_benchmarks())
    while not _listens(port):
        if process.poll() is not None:
            raise RuntimeError("the backend did not start")
        time.sleep(0.05)
    return psutil.Process(process.pid)


def _with_benchmarks() -> dict[str, str]:
    own = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{own}:{known}" if known else own}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(port: int) -> bool:
    """Tell whether a small question is answered with 200."""
    body = json.dumps({"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "?"}]}).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: b",
        "content-type: application/json",
        f"authorization: Bearer {KEY}",
    )
    head = "\r\n".join((*lines, "connection: close", f"content-length: {len(body)}", "", ""))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(head.encode() + body)
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
