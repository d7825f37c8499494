"""What a person sees of a batch while it runs: a bar on a terminal, nothing in a log."""

import sys
import time
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from glm_worker.offline.asgi import Reply


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    output_tokens: int = 0  # as responses call them


class _Body(msgspec.Struct):
    usage: _Usage | None = None


_body = msgspec.json.Decoder(_Body)


class Tally:
    """Counts answers, and shows them where stderr is a terminal."""

    def __init__(self, num_requests: int, num_done: int, num_refused: int) -> None:
        """num_done: answers of an earlier run. num_refused: those of them that are errors."""
        self.num_requests = num_requests
        self.num_before = num_done
        self.num_answered = 0
        self.num_refused = num_refused
        self.num_tokens = 0
        self._began_s = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self.num_requests, completed=self.num_before, speed="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, reply: Reply) -> None:
        self.num_answered += 1
        if reply.status == 200:
            usage = _body.decode(reply.body).usage or _Usage()
            self.num_tokens += usage.completion_tokens + usage.output_tokens
        else:
            self.num_refused += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, speed=f"{self.num_tokens / self._seconds:.0f} tokens/s")

    @property
    def sentence(self) -> str:
        """What was done, for the end."""
        done = self.num_before + self.num_answered
        parts = [f"{done} of {self.num_requests} requests have an answer"]
        if self.num_before:
            parts.append(f"{self.num_before} had one before")
        if self.num_refused:
            parts.append(f"{self.num_refused} are errors")
        speed = f"{self.num_answered / self._seconds:.1f} requests/s, {self.num_tokens / self._seconds:.0f} tokens/s"
        return f"{'; '.join(parts)}; {self._seconds:.1f} s, {speed}"

    @property
    def _seconds(self) -> float:
        return max(1e-3, time.monotonic() - self._began_s)


def _bar() -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
