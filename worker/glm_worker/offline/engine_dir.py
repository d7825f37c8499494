"""The folder of an engine's sockets and slots: its own, and gone with its process at the latest when another starts.

A lock that is held for life tells folders of the living from those of the dead, as in supervisor/rundir.py. There the
folders lie in a root of the operator's choice; here in the machine's own for temporary files, where anybody may make
names, and no name but a random one is safe to rely on.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "glm-engine-"
_LOCK, _UNLOCKED = "engine.lock", "engine.lock.new"


class EngineDir:
    """A folder of our own. Remove it with close; what a process leaves that was killed, the next one removes."""

    def __init__(self) -> None:
        _remove_dead(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock_fd = os.open(self.path / _UNLOCKED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        (self.path / _UNLOCKED).rename(self.path / _LOCK)  # whoever sees it by its name finds it locked

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)


def _remove_dead(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_uid == os.geteuid():
                _remove_if_dead(folder)
        except OSError:
            continue  # it lives, it is gone already, or it is none of ours


def _remove_if_dead(folder: Path) -> None:
    """Raises BlockingIOError if its process lives, and FileNotFoundError if it has no lock."""
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)
