"""Print log files, and go on printing what is added to them."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

POLL_S = 0.2


def follow(logs: Mapping[str, Path], *, forever: bool, write: Callable[[str], None]) -> None:
    """Write every line of the logs; with several, prefixed by their name. forever: until interrupted.

    A log that is replaced (its pod started again) is read from its beginning.
    """
    readers = {name: LogReader(path) for name, path in logs.items()}
    while True:
        for name, reader in readers.items():
            for line in reader.new_lines(final=not forever):
                write(f"{name} | {line}" if len(readers) > 1 else line)
        if not forever:
            return
        time.sleep(POLL_S)


class LogReader:
    """Whole lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0

    def new_lines(self, *, final: bool) -> list[str]:
        """Return the lines added since the last call; the last one only when it has ended, or when final."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return []
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._offset = status.st_ino, 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        if not final:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data.decode(errors="replace").splitlines()
