"""The server's process with a watch on its event loop: which stretches nothing else had a turn in, and who held it.

A tick of the loop is due every few milliseconds. What it is late by is the loop's own work, or that of a thread that
holds Python's lock, or a wait for something else, or the machine ran other processes. The last is no fault, and the
kernel tells it apart: for each thread, how long it ran and how long it waited for a processor.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import uvloop

from glm_edge.open_files import raise_open_files
from glm_worker.server.edge import memory
from glm_worker.server.main import serve
from glm_worker.settings import WorkerSettings

TARGET = f"{__name__}:run_watched"
FILE = "GLM_TEST_LOOP_WATCH"  # environment: where the stretches are written, a line each
TICK_S = 0.004
TOLD_S = 0.015  # shorter ones are nobody's business
LOOKED_S = 0.025  # so late, the stacks are looked at


@dataclass(frozen=True)
class Stretch:
    """began_s, ended_s: on the machine's monotonic clock. late_s: by which the tick was late. held_s: of that, what
    nobody else on the machine took.
    """

    began_s: float
    ended_s: float
    late_s: float
    held_s: float
    stacks: str

    @classmethod
    def all_of(cls, path: Path, since_s: float) -> list["Stretch"]:
        """Return those that ended after this time, longest first."""
        found = [cls(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
        return sorted((each for each in found if each.ended_s > since_s), key=lambda each: -each.held_s)


def run_watched(settings: WorkerSettings, control_fd: int) -> None:
    """Serve as glm_worker.server.main.run_server does, under watch."""
    raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, Path(os.environ[FILE]).open("a") as file:
        watch = Watch(file)

        def settled() -> None:
            memory.settle()
            watch.begin()

        runner.run(serve(settings, control_fd, before_serving=settled))


class Watch:
    """Writes each stretch to a file, a line each. Use it in the loop that it watches."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last_s = 0.0
        self._times: dict[str, _Times] = {}
        self._stacks = ""
        self._is_over = False

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = str(threading.get_native_id())
        self._ident = threading.get_ident()
        self._last_s, self._times = time.monotonic(), _times()
        threading.Thread(target=self._look, daemon=True).start()
        self._loop.call_later(TICK_S, self._tick)

    def end(self) -> None:
        self._is_over = True

    def _tick(self) -> None:
        now, times = time.monotonic(), _times()
        late_s = now - self._last_s - TICK_S
        if late_s > TOLD_S:
            since = {name: each.since(self._times.get(name, _Times(0, 0))) for name, each in times.items()}
            held_s = _held_s(late_s, since.pop(self._thread), list(since.values()))
            if held_s > TOLD_S:
                stretch = Stretch(self._last_s, now, late_s, held_s, self._stacks)
                self._file.write(json.dumps(asdict(stretch)) + "\n")
                self._file.flush()
        self._stacks = ""
        self._last_s, self._times = now, times
        if not self._is_over:
            self._loop.call_later(TICK_S, self._tick)

    def _look(self) -> None:
        while not self._is_over:
            time.sleep(TICK_S)
            if time.monotonic() - self._last_s - TICK_S > LOOKED_S and not self._stacks:
                frames = sys._current_frames()
                loop = "".join(traceback.format_stack(frames.pop(self._ident))[-8:])
                frames.pop(threading.get_ident(), None)
                others = ["".join(traceback.format_stack(frame)[-3:]) for frame in frames.values()]
                self._stacks = "\n".join([f"the loop:\n{loop}", *(f"another thread:\n{each}" for each in others)])


def _held_s(late_s: float, own: "_Times", others: Sequence["_Times"]) -> float:
    """Return what a tick is late by for other reasons than that the machine ran other processes."""
    blocked_s = max(0.0, late_s - own.ran_s - own.queued_s)  # by Python's lock, or by something outside
    by_others_s = min(blocked_s, sum(each.ran_s for each in others))
    by_the_world_s = blocked_s - max((each.queued_s for each in others), default=0.0) - by_others_s
    return min(late_s, own.ran_s + by_others_s + max(0.0, by_the_world_s))


class _Times(NamedTuple):
    """Of one thread, in seconds. queued_s: ready to run, and another one ran."""

    ran_s: float
    queued_s: float

    def since(self, before: "_Times") -> "_Times":
        return _Times(self.ran_s - before.ran_s, self.queued_s - before.queued_s)


def _times() -> dict[str, _Times]:
    """Return the times of each thread of this process, by its number."""
    found = {}
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - pathlib takes several times as long
        try:
            with open(f"/proc/self/task/{task}/schedstat") as file:  # noqa: PTH123 - every few milliseconds
                ran, queued, _ = file.read().split()
            found[task] = _Times(int(ran) / 1e9, int(queued) / 1e9)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            pass
    return found
