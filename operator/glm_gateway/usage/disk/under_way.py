"""What requests that have not ended have used so far: on disk, so that the death of their gateway loses a second.

A file of each process, as a whole, written anew each second in which something changed: it is as large as what is under
way, and never grows with time. Who ends well leaves none. What a dead process has left, another one takes over, which
may be the next one or a replica: it holds the lock of the writer that is gone.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glm_gateway.usage.disk.files import locked, remove, write_whole
from glm_gateway.usage.disk.journal import Journal, writer_lock
from glm_gateway.usage.entry import Entry, entry_in, line_of


class UnderWay:
    """Of one process. Nothing here is for two threads at once. Methods raise OSError."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path = _path(journal.folder, journal.writer)
        self._written: list[Entry] = []
        self._is_own = False  # what the file has, if it is there

    def write(self, entries: Sequence[Entry]) -> bool:
        """Have these on disk in place of those before; return whether anything had to be written."""
        if _said(entries) == _said(self._written):
            return False
        self._is_own = True  # also where the disk fails behind it
        if entries:
            write_whole(self._path, b"".join(map(line_of, entries)), mode=0o600)
        else:
            remove(self._path)
        self._written = list(entries)
        return True

    def orphans(self) -> Iterator["Orphan"]:
        """Yield what processes have left that are dead; nobody else has it meanwhile. At first that of this writer."""
        if not self._is_own and self._path.exists():
            yield Orphan(self._path)
        for path in sorted(self._journal.folder.glob("under-way-*.jsonl")):
            number = path.stem.removeprefix("under-way-")
            if path == self._path or not number.isdigit():
                continue
            lock = locked(writer_lock(self._journal.folder, int(number)))
            if lock is None:
                continue  # it lives
            try:
                if path.exists():
                    yield Orphan(path)
            finally:
                os.close(lock)


@dataclass(frozen=True)
class Orphan:
    """What one dead process has left."""

    path: Path

    def entries(self) -> list[Entry]:
        return [entry for line in self.path.read_bytes().splitlines(keepends=True) if (entry := entry_in(line))]

    def forget(self) -> None:
        remove(self.path)


def first_day(folder: Path) -> str:
    """Return the first day of which something is under way, of whatever process; empty: nothing is."""
    days = []
    for path in folder.glob("under-way-*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            days += [entry.day for entry in Orphan(path).entries()]
    return min(days, default="")


def _said(entries: Sequence[Entry]) -> list[tuple[str, str, object, int]]:
    """Return what has to be on disk. The day: an export of a day waits for what is under way of it."""
    return [(entry.id, entry.day, entry.usage, entry.cost) for entry in entries]


def _path(folder: Path, writer: int) -> Path:
    return folder / f"under-way-{writer}.jsonl"
