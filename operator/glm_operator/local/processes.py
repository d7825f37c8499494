"""Processes of pods: start, look, stop. The only module of local mode that touches them. Linux (/proc).

A pod's supervisor is known by pid and start time, so that a recycled pid is never signalled. Every process it starts
inherits the token in its environment: that is how what is left of a pod is found when its supervisor has died.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from glm_operator.local.errors import LocalError
from glm_operator.local.gpus import listed_devices

TOKEN_VARIABLE = "GLM_LOCAL_TOKEN"  # noqa: S105 - a name, not a secret


@dataclass(frozen=True)
class Process:
    pid: int
    start_ticks: int  # clock ticks since boot


def worker_program() -> list[str]:
    """Return the command that is this machine's `glm-worker`; LocalError says what to install when there is none."""
    if sys.platform != "linux":
        raise LocalError(f"local mode needs Linux, this is {sys.platform}; run the worker image with docker instead")
    missing = [module for module in ("glm_worker", "torch", "tokenizers", "zmq") if find_spec(module) is None]
    if missing:
        raise LocalError(
            f"the worker is not installed here (no {', '.join(missing)}); `make setup` in a checkout installs it"
        )
    script = Path(sys.executable).with_name("glm-worker")
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "glm_worker.main"]


def start(command: Sequence[str], env: Mapping[str, str], token: str, run_dir: Path, log: Path) -> Process:
    """Start a pod's supervisor in a session of its own, its output in the log; the last start's log stays beside it."""
    _make_private(run_dir)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GLM_")}
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    pid = os.posix_spawn(
        command[0],
        [*command],
        inherited | dict(env) | {TOKEN_VARIABLE: token},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), to_log, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,  # a terminal's Ctrl-C is not for it
    )
    return Process(pid, _start_ticks(pid) or 0)


def is_alive(process: Process) -> bool:
    """Whether this very process exists and is not a zombie: until it is dead in all its threads, it holds its ports."""
    return process.pid > 0 and _start_ticks(process.pid) == process.start_ticks


def terminate(process: Process) -> None:
    """Ask it to finish its requests and end (SIGTERM)."""
    if is_alive(process):
        _signal(process.pid, signal.SIGTERM)


def kill(process: Process) -> None:
    if is_alive(process):
        _signal(process.pid, signal.SIGKILL)


def members(token: str) -> list[Process]:
    """Every living process of a pod: its supervisor and all that it started.

    One that is on its way out has no environment any more, and is not found, though it still holds its ports.
    """
    entry = f"{TOKEN_VARIABLE}={token}".encode()
    found = [pid for pid in _pids() if entry in _read(pid, "environ").split(b"\0")]
    return [Process(pid, ticks) for pid in found if (ticks := _start_ticks(pid)) is not None]


def memory_bytes(of: Iterable[Process]) -> int:
    """Memory of processes together; pages that they share (torch, forked once) are counted once."""
    return sum(_proportional_bytes(process.pid) for process in of)


def visible_gpus() -> list[str]:
    """Return the CUDA devices that processes started from here may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return listed_devices(visible)
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listing = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    num_gpus = listing.stdout.count("GPU ") if listing.returncode == 0 else 0
    return [str(index) for index in range(num_gpus)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, a zombie, or another user's
        return b""


def _start_ticks(pid: int) -> int | None:
    """Start time of a living process; None for one that is gone or a zombie.

    proc(5): of the fields after the name, the first is the state, the 18th the number of threads, the 20th the start
    time. A process whose first thread has ended shows as a zombie while others may run on.
    """
    fields = _read(pid, "stat").rpartition(b")")[2].split()  # the name in parentheses may hold anything
    if not fields or (fields[0] in (b"Z", b"X") and int(fields[17]) <= 1):
        return None
    return int(fields[19])


def _proportional_bytes(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in the meantime, which is what was wanted
        os.kill(pid, number)


def _make_private(folder: Path) -> None:
    """Make the folder for sockets; refuse one that another user could have put there."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.parent.stat().st_uid != os.getuid():
        raise LocalError(f"{folder.parent} belongs to another user; remove it or set TMPDIR")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
