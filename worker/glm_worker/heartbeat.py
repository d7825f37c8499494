"""Heartbeat slots: what each rank of a pod last did, in shared memory.

One file a generation, one fixed-size slot a local rank, mapped by the rank (the only writer) and by its supervisor (the
only reader). One field goes the other way: which server rank 0 is to speak with. A write is a few stores into mapped
memory: no system call and no lock, so a rank may do it in every step. A read may fall between two stores of one update;
it is evidence for the watchdog, not a transaction. What must not be seen half done is ordered: a message is written
before the phase that makes it count, the time of change last.

Each field is an aligned native 64-bit integer, which this hardware stores in one go.
"""

import mmap
import os
import time
from enum import IntEnum
from pathlib import Path

import msgspec

MESSAGE_BYTES = 3072  # longest last word; a longer one keeps its beginning
SLOT_BYTES = 4096
_SLOT_WORDS = SLOT_BYTES // 8
_MESSAGE_OFFSET = SLOT_BYTES - MESSAGE_BYTES


class Phase(IntEnum):
    """How far a rank has come. starting is zero: what a fresh file says."""

    starting = 0
    loading = 1
    ready = 2
    failed = 3


class _Field(IntEnum):
    pid = 0
    phase = 1
    step = 2
    collective_seq = 3
    in_collective = 4
    changed_ns = 5
    done_bytes = 6
    total_bytes = 7
    message_len = 8
    server = 9  # written by the supervisor


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """One rank as its slot showed it at one moment. Travels between the pods of a group, hence a msgspec struct."""

    pid: int = 0  # 0: the rank has not begun
    phase: Phase = Phase.starting
    step: int = 0
    collective_seq: int = 0  # collectives entered since the generation began
    in_collective: bool = False
    changed_ns: int = 0  # monotonic clock of the rank's own machine: compare it with itself only
    done_bytes: int = 0
    total_bytes: int = 0
    message: str = ""  # why the rank failed


class RankSlot:
    """One slot of the file. The rank writes; the supervisor only calls snapshot and meet."""

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("q")
        self._base = index * _SLOT_WORDS
        self._message_at = index * SLOT_BYTES + _MESSAGE_OFFSET

    @classmethod
    def open(cls, path: str | Path, index: int) -> "RankSlot":
        """Map the slot of local rank index in a file made by create_slots."""
        with Path(path).open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        if not 0 <= index < len(memory) // SLOT_BYTES:
            raise IndexError(f"slot {index} of {path}, which has {len(memory) // SLOT_BYTES}")
        return cls(memory, index)

    def begin(self) -> None:
        """Say that this process is the rank now."""
        self._set(_Field.pid, os.getpid())
        self._touch()

    def beat(self, step: int) -> None:
        """Say that the step with this number begins or goes on."""
        self._set(_Field.step, step)
        self._touch()

    def alive(self) -> None:
        """Say that the step goes on. For a rank whose step may last longer than the watchdog is patient."""
        self._touch()

    def idle(self) -> None:
        """Say that there is nothing to do. Call it at least every 0.5 s while waiting: an idle rank is watched too."""
        self._touch()

    def enter_collective(self) -> None:
        """Say that from here this rank waits for its peers."""
        self._set(_Field.collective_seq, self._get(_Field.collective_seq) + 1)
        self._set(_Field.in_collective, 1)
        self._touch()

    def leave_collective(self) -> None:
        self._set(_Field.in_collective, 0)
        self._touch()

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        """Report how much of this rank's weights has been read."""
        self._set(_Field.done_bytes, done_bytes)
        self._set(_Field.total_bytes, total_bytes)
        self._set(_Field.phase, Phase.loading)
        self._touch()

    def ready(self) -> None:
        """Say that this rank serves: from now on standing still means being hung."""
        self._set(_Field.phase, Phase.ready)
        self._touch()

    def fail(self, message: str) -> None:
        """Leave a last word: why this rank ends."""
        data = cut(message).encode()
        self._memory[self._message_at : self._message_at + len(data)] = data
        self._set(_Field.message_len, len(data))
        self._set(_Field.phase, Phase.failed)
        self._touch()

    def meet(self, server: int) -> None:
        """Tell rank 0 which server it is to speak with from now on: of the one before nothing is obeyed any more."""
        self._set(_Field.server, server)

    @property
    def server(self) -> int:
        """Which server rank 0 is to speak with: 0 is the first of this supervisor's life."""
        return self._get(_Field.server)

    def snapshot(self) -> SlotView:
        """Return what the slot says now."""
        length = min(self._get(_Field.message_len), MESSAGE_BYTES)
        data = self._memory[self._message_at : self._message_at + length]
        return SlotView(
            pid=self._get(_Field.pid),
            phase=Phase(self._get(_Field.phase)),
            step=self._get(_Field.step),
            collective_seq=self._get(_Field.collective_seq),
            in_collective=bool(self._get(_Field.in_collective)),
            changed_ns=self._get(_Field.changed_ns),
            done_bytes=self._get(_Field.done_bytes),
            total_bytes=self._get(_Field.total_bytes),
            message=data.decode(errors="ignore"),  # whatever a broken rank wrote must not break its reader
        )

    def close(self) -> None:
        """Unmap. The slot must not be used after."""
        self._words.release()
        self._memory.close()

    def _get(self, field: _Field) -> int:
        return self._words[self._base + field]

    def _set(self, field: _Field, value: int) -> None:
        self._words[self._base + field] = value

    def _touch(self) -> None:
        self._words[self._base + _Field.changed_ns] = time.monotonic_ns()


def cut(message: str) -> str:
    """Return a last word no longer than MESSAGE_BYTES in UTF-8, ended between two characters."""
    data = message.encode(errors="backslashreplace")  # a file name in it may hold what is no character
    return data[:MESSAGE_BYTES].decode(errors="ignore")


def create_slots(path: Path, num_slots: int) -> None:
    """Make the file of a generation, all slots zero. Fails if it exists: generations never share slots."""
    with path.open("xb") as file:
        file.truncate(num_slots * SLOT_BYTES)
