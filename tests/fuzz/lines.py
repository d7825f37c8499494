"""Which lines of some files have run: what guides the choice of bytes. By sys.settrace, in one thread."""

import sys
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Any


class Lines:
    """folders: parts of the paths of files that count. seen: all lines that have run, between start and stop."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.seen: set[tuple[CodeType, int]] = set()
        self._folders = tuple(folders)
        self._counts: dict[str, bool] = {}

    def start(self) -> None:
        sys.settrace(self._on_call)

    def stop(self) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = any(folder in name for folder in self._folders)
        return self._on_line if counts else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.seen.add((frame.f_code, frame.f_lineno))
        return self._on_line
