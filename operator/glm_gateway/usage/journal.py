"""The journal: a file a day, a line a request, on disk within a second."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from glm_gateway.usage.entry import Entry, entry_in, line_of

_SUFFIX = ".jsonl"


class Journal:
    """folder: of this gateway alone. id: of the journal, over all processes that write it.

    Nothing that `sync` returned from is lost, whatever dies.

    One thread may append while another one syncs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.id = _id_in(folder)
        self._unwritten: list[Entry] = []

    def append(self, entry: Entry) -> None:
        """Take an entry. It is on disk after the next `sync`."""
        self._unwritten.append(entry)

    def sync(self) -> int:
        """Write what was taken, and wait for the disk; return how many entries that were. Raises OSError.

        After an error the entries are there for the next time: one that was written before counts once, by its id.
        """
        taken = list(self._unwritten)
        by_day: dict[str, list[bytes]] = {}
        for entry in taken:
            by_day.setdefault(entry.day, []).append(line_of(entry))
        written: set[str] = set()
        try:
            for day, lines in by_day.items():
                self._write(day, b"".join(lines))
                written.add(day)
        finally:
            # At once, as another thread may append behind them.
            self._unwritten[: len(taken)] = [entry for entry in taken if entry.day not in written]
        return len(taken)

    @property
    def num_unwritten(self) -> int:
        """How many entries are in memory alone."""
        return len(self._unwritten)

    def has_unwritten(self, day: str) -> bool:
        """Tell whether an entry of a day is in memory alone."""
        return any(entry.day == day for entry in list(self._unwritten))

    def days(self) -> list[str]:
        """Return the days of which there is something, in order."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"????-??-??{_SUFFIX}"))

    def entries(self, day: str) -> Iterator[Entry]:
        """Yield the entries of a day as they are on disk; what is torn or none is left out."""
        path = self._folder / f"{day}{_SUFFIX}"
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                entry = entry_in(line)
                if entry is not None:
                    yield entry

    def drop_before(self, day: str) -> None:
        """Delete the files of earlier days."""
        for old in self.days():
            if old < day:
                (self._folder / f"{old}{_SUFFIX}").unlink(missing_ok=True)

    def _write(self, day: str, lines: bytes) -> None:
        path = self._folder / f"{day}{_SUFFIX}"
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(descriptor).st_size
        try:
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # what was torn ends here, and takes nothing along
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)  # or the file grows by every try
            raise
        finally:
            os.close(descriptor)
        if is_new:
            self._sync_folder()

    def _sync_folder(self) -> None:
        sync_folder(self._folder)


def write_whole(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that is there whole or not at all, whatever dies. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id_in(folder: Path) -> str:
    """Return the id of the journal in a folder: made once, and kept there. Raises OSError."""
    path = folder / "journal.id"
    if not path.exists():
        write_whole(path, f"{secrets.token_hex(4)}\n".encode(), mode=0o600)
    return path.read_text().strip()
