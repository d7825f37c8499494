"""The compile processes that the zygote forks for the server: whoever connects gets one.

A connection is the life of its process. The client sends one end of a socket pair over it; the forked process serves
that. Whatever the client says next, and its end, kills the process; how the process ended is the last word of the
zygote. So nothing outlives the server, and the server needs no child of its own.
"""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection

from glm_worker.control import encode_frame
from glm_worker.server.structured.messages import Ended
from glm_worker.server.structured.process import compile_for

NAME = "glm-compiler"
_log = logging.getLogger("glm_worker.zygote")
Fork = Callable[[str, Callable[[], int]], int]
"""Forks a process of this name that runs the function and ends with its exit code; returns the pid. Raises OSError."""


class Compilers:
    """All that listener brings. One event at a time, none of them blocks."""

    def __init__(self, listener: socket.socket, fork: Fork) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._fork = fork
        self._asking: set[socket.socket] = set()  # connected, and have not sent their end of a link yet
        self._lives: dict[int, socket.socket] = {}  # by pid
        self._condemned: set[int] = set()  # pids that were killed and are not reaped yet

    @property
    def watched(self) -> list[socket.socket]:
        """What to call look for when it is readable."""
        lives = [life for pid, life in self._lives.items() if pid not in self._condemned]
        return [self._listener, *self._asking, *lives]

    def look(self, readable: Collection[object]) -> None:
        """Do what those that are readable ask for."""
        for pid, life in self._lives.items():
            if life in readable and pid not in self._condemned:
                self._condemned.add(pid)
                os.kill(pid, signal.SIGKILL)
        for life in [each for each in self._asking if each in readable]:
            self._begin(life)
        if self._listener in readable:
            with contextlib.suppress(OSError):  # it hung up before we looked
                life, _ = self._listener.accept()
                life.setblocking(False)
                self._asking.add(life)

    def ended(self, pid: int, code: int) -> None:
        """Tell how a process ended, if it is one of these. code: an exit code or the negative number of a signal."""
        life = self._lives.pop(pid, None)
        if life is None:
            return
        self._condemned.discard(pid)
        with life, contextlib.suppress(OSError):  # the server may be gone
            life.sendall(encode_frame(Ended(code)))

    def close(self) -> None:
        """Close every socket, as a forked process must. The processes are killed by who closes for good."""
        for held in (self._listener, *self._asking, *self._lives.values()):
            held.close()

    def _begin(self, life: socket.socket) -> None:
        fds: list[int] = []
        with contextlib.suppress(OSError):
            _, fds, _, _ = socket.recv_fds(life, 1, 1)
        if not fds:
            self._asking.remove(life)
            life.close()
            return
        with socket.socket(fileno=fds[0]) as link:
            try:
                pid = self._fork(NAME, lambda: compile_for(link))
                self._lives[pid] = life
            except OSError as error:
                _log.error("cannot fork a process that compiles grammars: %s", error)
                life.close()
        self._asking.remove(life)
