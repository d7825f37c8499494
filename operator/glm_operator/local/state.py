"""What local mode remembers between commands: one folder a deployment, with its pods, logs and sockets.

    ${XDG_STATE_HOME:-~/.local/state}/glm-operator/local/NAME/{state.json,scaling.json,logs/POD.log,run/POD/}

A pod is recorded before its process starts, so that a process is never unknown to the next command.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from glm_operator.local.crashes import Crash
from glm_operator.local.errors import LocalError

MAX_RUN_DIR_LENGTH = 64
"""A Unix socket's path holds at most 107 bytes; the sockets in the folder have names of up to 40."""


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


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of one GLMDeployment."""

    name: str
    network: int
    pods: list[PodRecord] = []
    body: dict[str, Any] = {}  # the GLMDeployment as last brought up; empty: by an earlier version
    controller: ControllerRecord | None = None  # None: nothing is scaled or promised
    leaving: list[str] = []  # groups that were told to finish and go
    crashes: list[Crash] = []  # pods that ended by themselves and are not well again

    @property
    def groups(self) -> dict[str, list[PodRecord]]:
        """Pods of each group, leaders first."""
        ordered = sorted(self.pods, key=lambda pod: (len(pod.group), pod.group, pod.index))
        return {
            group: [pod for pod in ordered if pod.group == group] for group in dict.fromkeys(p.group for p in ordered)
        }


class StateFolder:
    """The folder, and the lock that keeps two commands from changing it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_user(cls) -> "StateFolder":
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return cls(Path(base) / "glm-operator" / "local")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; LocalError if another command holds it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LocalError("another `glm local` command is at work; wait for it to end") from error
            yield

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
        temporary = folder / "state.json.new"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        temporary.replace(folder / "state.json")  # whole or not at all

    def scaling_file(self, deployment: str) -> Path:
        """File in which the controller says what it decided."""
        return self.root / deployment / "scaling.json"

    def remove(self, state: DeploymentState) -> None:
        """Forget a deployment. Its logs stay: they are wanted most when something went wrong."""
        self.remove_run_dirs(state.name, state.pods)
        self.scaling_file(state.name).unlink(missing_ok=True)
        (self.root / state.name / "state.json").unlink(missing_ok=True)

    def remove_run_dirs(self, deployment: str, pods: Iterable[PodRecord]) -> None:
        """Remove the folders for sockets of pods that have ended."""
        for pod in pods:
            path = self.run_dir(deployment, pod.name)
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
