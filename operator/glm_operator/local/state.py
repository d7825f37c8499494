"""What local mode remembers between commands: one folder a deployment, with its pods, logs and sockets.

    ${XDG_STATE_HOME:-~/.local/state}/glm-operator/
      keys/                                 API keys of all gateways
      local/NAME/state.json, scaling.json, logs/POD.log, run/POD/
                 gateway.json, groups.json, usage/

A process is recorded before it starts, so that it is never unknown to the next command. There is one folder of keys:
they are of the person whose machine it is, so a key is made once, and outlives the deployments that come and go.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from glm_operator.local.crashes import Crash
from glm_operator.local.errors import LocalError

MAX_RUN_DIR_LENGTH = 64
"""A Unix socket's path holds at most 107 bytes; the sockets in the folder have names of up to 40."""

LOOK_S = 0.05
"""Between two tries to take the lock."""

DRAIN_DEADLINE_S = 120.0
"""What the worker allows when the spec says nothing."""


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pod that was started, or was about to be."""

    name: str
    group: str
    index: int
    address: str
    fingerprint: str
    token: str  # in the environment of every process of the pod
    pid: int = 0  # 0: not started yet
    start_ticks: int = 0  # with pid: never mistakes another process for this one
    drain_s: float = DRAIN_DEADLINE_S  # how long its requests may take to finish
    start_limit_s: float = 600.0
    gpus: list[str | int] = []  # an earlier version wrote numbers; read devices
    rendezvous_port: int | None = None  # first of its group's block; None: a group of one pod needs none

    @property
    def devices(self) -> list[str]:
        """Its GPUs, as CUDA_VISIBLE_DEVICES names them."""
        return [str(device) for device in self.gpus]


class ControllerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The process that keeps the number of groups, or was about to be one."""

    token: str  # in its environment
    pid: int = 0
    start_ticks: int = 0


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway of a deployment, or what was about to be one."""

    name: str
    address: str
    fingerprint: str  # of what its process cannot take over while it runs
    token: str  # in its environment
    secret: str  # keys its hashes of prompts and tenants
    pid: int = 0
    start_ticks: int = 0
    drain_s: float = 600.0  # how long its requests may take to finish

    def __repr__(self) -> str:
        return f"GatewayRecord({self.name}, pid {self.pid})"


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of one GLMDeployment."""

    name: str
    network: int
    pods: list[PodRecord] = []
    body: dict[str, Any] = {}  # the GLMDeployment as last brought up; empty: by an earlier version
    controller: ControllerRecord | None = None  # None: nothing is scaled or promised
    gateway: GatewayRecord | None = None  # None: groups are asked themselves
    leaving: list[str] = []  # groups that get no new requests, and go
    stopping: list[str] = []  # those of them whose processes were told to finish and end
    crashes: list[Crash] = []  # pods that ended by themselves and are not well again

    @property
    def groups(self) -> dict[str, list[PodRecord]]:
        """Pods of each group, leaders first."""
        ordered = sorted(self.pods, key=lambda pod: (len(pod.group), pod.group, pod.index))
        return {
            group: [pod for pod in ordered if pod.group == group] for group in dict.fromkeys(p.group for p in ordered)
        }


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that nobody but this user reads, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.touch(0o600)
    temporary.chmod(0o600)  # also one that an earlier version has left
    temporary.write_bytes(data)
    temporary.replace(path)


def _take(file: IO[str]) -> bool:
    """Take the lock of a file; return whether nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class StateFolder:
    """The folder, and the lock that keeps two commands from changing it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_user(cls) -> "StateFolder":
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return cls(Path(base) / "glm-operator" / "local")

    @contextmanager
    def locked(self, patience_s: float = 0.0, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock. Who keeps the groups of any deployment holds it, too, while it replaces one.

        patience_s: how long to wait for it. waits: called once where it must be waited for. LocalError if another
        holds it for longer.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.root / "lock").open("a") as file:
            if not _take(file):
                waits()
                deadline_s = time.monotonic() + patience_s
                while not _take(file):
                    if time.monotonic() >= deadline_s:
                        raise LocalError("another `glm local` command, or a controller, is at work; wait for it to end")
                    time.sleep(LOOK_S)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def holder(self) -> int:
        """Return the process that had the lock last, and has it where it is taken; 0: nobody had."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.root / "lock").read_text())
        return 0

    def deployments(self) -> list[DeploymentState]:
        found = []
        for path in sorted(self.root.glob("*/state.json")):
            with contextlib.suppress(FileNotFoundError):  # another command has stopped it just now
                found.append(self.read(path.parent.name))
        return found

    def read(self, name: str) -> DeploymentState:
        path = self.root / name / "state.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=DeploymentState)
        except msgspec.MsgspecError as error:
            raise LocalError(
                f"{path} is damaged ({error}); stop its processes by hand and remove the folder"
            ) from error

    def write(self, state: DeploymentState) -> None:
        folder = self.root / state.name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(folder / "state.json", msgspec.json.format(msgspec.json.encode(state)))

    @property
    def keys_folder(self) -> Path:
        """Folder of the API keys that gateways of this user know callers by."""
        return self.root.parent / "keys"

    def gateway_file(self, deployment: str) -> Path:
        """File that the gateway is told everything by, but for its secrets."""
        return self.root / deployment / "gateway.json"

    def groups_file(self, deployment: str) -> Path:
        """File in which gateways find the groups of a deployment."""
        return self.root / deployment / "groups.json"

    def usage_folder(self, deployment: str) -> Path:
        """Folder of the gateway's journal of usage. It stays when the deployment goes, as a claim would."""
        return self.root / deployment / "usage"

    def scaling_file(self, deployment: str) -> Path:
        """File in which the controller says what it decided."""
        return self.root / deployment / "scaling.json"

    def remove(self, state: DeploymentState) -> None:
        """Forget a deployment. Its logs stay: they are wanted most when something went wrong."""
        self.remove_run_dirs(state.name, [pod.name for pod in state.pods])
        for file in (self.scaling_file, self.gateway_file, self.groups_file):
            file(state.name).unlink(missing_ok=True)
        (self.root / state.name / "state.json").unlink(missing_ok=True)

    def remove_run_dirs(self, deployment: str, processes: Iterable[str]) -> None:
        """Remove the folders for sockets of what has ended."""
        for name in processes:
            path = self.run_dir(deployment, name)
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):  # other pods' folders are in it, or it is gone
                path.parent.rmdir()

    def log_file(self, deployment: str, pod: str) -> Path:
        return self.root / deployment / "logs" / f"{pod}.log"

    def run_dir(self, deployment: str, pod: str) -> Path:
        """Folder for a pod's sockets: in the state folder, or, if too long for one, where paths are short."""
        path = self.root / deployment / "run" / pod
        if len(os.fsencode(path)) <= MAX_RUN_DIR_LENGTH:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"glm-local-{os.getuid()}" / f"{pod[-20:]}-{digest}"
