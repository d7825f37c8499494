"""The audit log: a line of JSON an event, written by a thread of its own. Whatever becomes of its file, requests go on.

Events of management are always in it: the gateway's start, drain and end, its file and its keys when they change. Names
and numbers are in it, never a secret, and never what was said.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from glm_gateway.access.keys import Keyring
from glm_gateway.audit.config import AuditConfig
from glm_gateway.audit.keys import key_changes

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Lines in memory while the file takes none; more are lost, and counted."""

AGAIN_S = 1.0  # between two tries, while the file takes nothing
CLOSE_S = 5.0

_STDOUT = Path("-")


class AuditLog:
    """Made by `opened`, ended by `close`. Any thread may add lines.

    tells_requests: whether each request is a line as well. num_lost: lines that are nowhere.
    """

    def __init__(self, config: AuditConfig, clock: Callable[[], float] = time.time) -> None:
        self.tells_requests = config.requests
        self.num_lost = 0
        self._file = config.file
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._trouble = ""  # why the file takes nothing, while it does not
        self._change = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def opened(cls, config: AuditConfig) -> "AuditLog":
        """Return the log. Raises OSError where its file cannot be opened at all."""
        audit = cls(config)
        if config.file != _STDOUT:
            os.close(_open(config.file))
        audit.start()
        return audit

    def start(self) -> None:
        self._thread = threading.Thread(target=self._write_on, name="audit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, for a while, and end."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        if self._waiting:
            log.error("audit: %d lines are lost: %s did not take them", len(self._waiting), self._file)

    def add(self, event: str, **facts: Any) -> None:
        """Add a line: a moment, what happened, and facts that JSON can hold."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = msgspec.json.encode({"time": at, "event": event, **facts}) + b"\n"
        with self._change:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(line)
                self._change.notify()
                return
            self.num_lost += 1
            is_first = self.num_lost == 1
        if is_first:
            log.error("audit: %d lines wait for %s; more are lost from now on", MAX_WAITING, self._file)

    def keys_changed(self, before: Keyring | None, after: Keyring) -> None:
        """Add what became of keys when they were read again, by their names."""
        self.add("keys_reloaded", keys=len(after.keys), **key_changes(before, after))

    def _write_on(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._is_closing)
                lines = list(self._waiting)
                is_closing = self._is_closing
            if not lines:
                return
            if self._write(b"".join(lines)):
                with self._change:
                    for _ in lines:
                        self._waiting.popleft()
            elif is_closing:
                return
            else:
                with self._change:
                    self._change.wait_for(lambda: self._is_closing, AGAIN_S)

    def _write(self, data: bytes) -> bool:
        """Write lines; return whether all are written. Of lines that are torn nothing stays in a file."""
        try:
            if self._file == _STDOUT:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                _append(self._file, data)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            said = getattr(error, "strerror", None) or type(error).__name__
            if said != self._trouble:
                log.error("audit: %s takes nothing: %s", self._file, said)
            self._trouble = said
            return False
        if self._trouble:
            log.info("audit: %s is written again", self._file)
            self._trouble = ""
        return True


def _append(path: Path, data: bytes) -> None:
    """Add to a file as it is now: who rotates logs may have moved the last one away."""
    descriptor = _open(path)
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
