"""The journal: a folder with a file a day and writer, a line a request, on disk within a second.

All processes of a gateway may share it: its replicas, and one that starts while another one ends. Each is a writer of
its own, known by a number that it holds as long as it lives, and writes no file of another one; all read all.
"""

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from glm_gateway.usage.disk.files import locked, sync_folder, write_whole
from glm_gateway.usage.entry import Entry, entry_in, line_of

_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?\.jsonl")
"""The first writer has no number in its files: so they were named before there were several."""


class _Id(msgspec.Struct):
    id: str


_id_in_line = msgspec.json.Decoder(_Id).decode


class Journal:
    """folder: of this gateway alone. id: of the journal, over all processes that write it. writer: number of this one.

    Nothing that `sync` or `write` returned from is lost, whatever dies.

    One thread may append while another one does the rest. Raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.id = _id_in(folder)
        self.writer, self._lock = _free_writer(folder)
        self._unwritten: list[Entry] = []
        self._read: dict[str, int] = {}  # bytes that `fresh` has read, by the name of the file
        self._knows_own = False

    def close(self) -> None:
        """Let another process be this writer. Nothing is written afterwards."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def folder(self) -> Path:
        return self._folder

    def append(self, entry: Entry) -> None:
        """Take an entry. It is on disk after the next `sync`."""
        self._unwritten.append(entry)

    def sync(self) -> int:
        """Write what was taken, and wait for the disk; return how many entries that were. Raises OSError.

        After an error the entries are there for the next time: one that was written before counts once, by its id.
        """
        taken = list(self._unwritten)
        written: set[str] = set()
        try:
            for day, lines in _lines_by_day(taken).items():
                self._write(day, lines)
                written.add(day)
        finally:
            # At once, as another thread may append behind them.
            self._unwritten[: len(taken)] = [entry for entry in taken if entry.day not in written]
        return len(taken)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write these now, and wait for the disk. Raises OSError; some may be written then."""
        for day, lines in _lines_by_day(entries).items():
            self._write(day, lines)

    @property
    def num_unwritten(self) -> int:
        """How many entries are in memory alone."""
        return len(self._unwritten)

    def has_unwritten(self, day: str) -> bool:
        """Tell whether an entry of a day is in memory alone."""
        return any(entry.day == day for entry in list(self._unwritten))

    def days(self) -> list[str]:
        """Return the days of which there is something, in order."""
        return sorted({day for day, _ in self._files()})

    def entries(self, day: str) -> Iterator[Entry]:
        """Yield the entries of a day as they are on disk; what is torn or none is left out."""
        for line in self._lines(day):
            entry = entry_in(line)
            if entry is not None:
                yield entry

    def written(self, ids: Collection[str], since: str) -> set[str]:
        """Return which of these ids entries have that are on disk, of a day and those after it."""
        found = set()
        for day in self.days():
            for line in self._lines(day) if day >= since else ():
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    if (id_ := _id_in_line(line).id) in ids and entry_in(line) is not None:
                        found.add(id_)
        return found

    def fresh(self, since: str) -> Iterator[tuple[str, Entry]]:
        """Yield days and entries that other writers have added since the last time, from a day on, in order of days.

        At first that is all that there is, this writer's own files of processes before it among them. What is torn may
        be whole later, so it is read again, and so is all of it where one file cannot be read. Raises OSError.
        """
        read: dict[str, int] = {}
        for day, path in self._files():
            if day < since or (self._knows_own and path.name == _name(day, self.writer)):
                continue
            begin, size = self._read.get(path.name, 0), path.stat().st_size
            if size == begin:
                continue
            if size < begin:  # a full disk took lines back that were read: they come again, and count once
                begin = 0
            with path.open("rb") as file:
                file.seek(begin)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    begin += len(line)
                    entry = entry_in(line)
                    if entry is not None:
                        yield day, entry
            read[path.name] = begin
        self._read |= read
        self._knows_own = True  # from now on it is this process alone that writes them

    def drop_before(self, day: str) -> None:
        """Delete the files of earlier days."""
        for old, path in self._files():
            if old < day:
                path.unlink(missing_ok=True)
                self._read.pop(path.name, None)

    def _files(self) -> list[tuple[str, Path]]:
        """Return the days and files that there are, in order."""
        matches = [(_FILE.fullmatch(path.name), path) for path in self._folder.iterdir()]
        found = sorted((match[1], int(match[2] or 0), path) for match, path in matches if match)
        return [(day, path) for day, _, path in found]

    def _lines(self, day: str) -> Iterator[bytes]:
        for _, path in (each for each in self._files() if each[0] == day):
            with path.open("rb") as file:
                yield from file

    def _write(self, day: str, lines: bytes) -> None:
        path = self._folder / _name(day, self.writer)
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
            sync_folder(self._folder)


def writer_lock(folder: Path, writer: int) -> Path:
    """Return the file that the process holds which is a writer."""
    return folder / f"writer-{writer}.lock"


def _free_writer(folder: Path) -> tuple[int, int]:
    """Return the first number that no living process has, and the lock that keeps it. Raises OSError."""
    for writer in itertools.count():
        lock = locked(writer_lock(folder, writer))
        if lock is not None:
            return writer, lock
    raise AssertionError


def _name(day: str, writer: int) -> str:
    return f"{day}.{writer}.jsonl" if writer else f"{day}.jsonl"


def _lines_by_day(entries: Sequence[Entry]) -> dict[str, bytes]:
    found: dict[str, list[bytes]] = {}
    for entry in entries:
        found.setdefault(entry.day, []).append(line_of(entry))
    return {day: b"".join(lines) for day, lines in found.items()}


def _id_in(folder: Path) -> str:
    """Return the id of the journal in a folder: made once, and kept there. Raises OSError."""
    path = folder / "journal.id"
    if not path.exists():
        lock = locked(folder / "journal.lock", waits=True)
        assert lock is not None
        try:
            if not path.exists():
                write_whole(path, f"{secrets.token_hex(4)}\n".encode(), mode=0o600)
        finally:
            os.close(lock)
    return path.read_text().strip()
