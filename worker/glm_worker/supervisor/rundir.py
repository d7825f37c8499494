"""The supervisor's folder for sockets and heartbeat slots, one a life.

A lock file held for life tells living folders from those of supervisors that were killed; these are removed by the next
one to start. Several supervisors may share a root (pods run as processes of one machine).
"""

import fcntl
import hashlib
import os
import shutil
import socket
from pathlib import Path

from glm_worker.errors import ConfigError

_LOCK = "lock"
_LONGEST_SOCKET_NAME = "engine-01234567-9999999.9999"  # and as long as the step channel's, ranks-01234567-9999999/steps
_SUN_PATH_BYTES = 107  # sockaddr_un.sun_path without its final zero byte


class RunDir:
    """A folder of our own under root. Remove it with close; the kernel unlocks it if we cannot."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def create(cls, root: Path, incarnation: str) -> "RunDir":
        """Make root/incarnation and remove dead neighbours. Raises ConfigError when that cannot work here."""
        path = root.absolute() / incarnation
        longest = len(os.fsencode(path / _LONGEST_SOCKET_NAME))
        if longest > _SUN_PATH_BYTES:
            excess = longest - _SUN_PATH_BYTES
            raise ConfigError(
                f"GLM_RUN_DIR={root} is {excess} bytes too long for the socket paths below it (at most 107)"
            )
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root_fd = _locked(root / _LOCK, wait=True)  # nobody cleans up between our mkdir and our lock
            try:
                for neighbour in root.iterdir():
                    _remove_if_dead(neighbour)
                path.mkdir(mode=0o700)
                return cls(path, _locked(path / _LOCK, wait=True))
            finally:
                os.close(root_fd)
        except OSError as error:
            raise ConfigError(f"GLM_RUN_DIR={root} is not a folder that this user can write to: {error}") from error

    def lasting(self, kind: str, owner: str) -> Path:
        """Return where something of an owner is kept that outlives this life. Others may share the root."""
        return self.path.parent / f"{kind}-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"

    def slots(self, generation: str) -> Path:
        """Return where the heartbeat slots of a generation are."""
        return self.path / f"slots-{generation}"

    def endpoint(self, generation: str) -> str:
        """Return where the first server waits for rank 0 of a generation; endpoint_of has those that follow."""
        return f"ipc://{self.path}/engine-{generation}"

    @property
    def compile_path(self) -> str:
        """Where who wants grammars compiled connects."""
        return str(self.path / "compile.sock")

    def compile_listener(self) -> socket.socket:
        """Listen at compile_path, until it is closed. Once a life."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.compile_path)
        listener.listen()
        return listener

    def make_meeting(self, generation: str) -> Path:
        """Make and return the folder in which the ranks of a generation meet when this pod has all of them."""
        folder = self._meeting(generation)
        folder.mkdir(mode=0o700)
        return folder

    def forget(self, generation: str) -> None:
        """Remove what a generation left."""
        shutil.rmtree(self._meeting(generation), ignore_errors=True)
        self.slots(generation).unlink(missing_ok=True)
        first = Path(self.endpoint(generation).removeprefix("ipc://"))
        for bound in (first, *self.path.glob(f"{first.name}.*")):
            bound.unlink(missing_ok=True)

    def _meeting(self, generation: str) -> Path:
        return self.path / f"ranks-{generation}"

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)


def _locked(path: Path, *, wait: bool) -> int:
    """Return a descriptor that holds the lock. Raises BlockingIOError if another process does and wait is off."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _remove_if_dead(folder: Path) -> None:
    if not (folder / _LOCK).is_file():
        return  # not one of ours, or the root's own lock
    try:
        fd = _locked(folder / _LOCK, wait=False)
    except BlockingIOError:
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(fd)
