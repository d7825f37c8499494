"""The supervisor's own children, and every orphan that becomes one: all of them are reaped here.

As a subreaper the supervisor inherits processes whose parent died, before any init does. One SIGCHLD handler waits for
any child, so nothing else in this process may wait for one: no subprocess, no asyncio child watcher.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from glm_worker.supervisor.children.process import STOP_SIGNALS, adopt_orphans
from glm_worker.supervisor.evidence.causes import Exit, exit_of

_log = logging.getLogger("glm_worker.supervisor")


class Child:
    """A process that this one started."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        """SIGKILL, unless it is reaped already (then the number may be another process's)."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


class Children:
    """Starts and reaps. Make it inside the running loop of the main thread."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        adopt_orphans()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn_python(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], link: socket.socket
    ) -> Child:
        """Start `python -m module` with one inherited socket, told to it as --control-fd, and this process as --parent.

        It starts with the stop signals blocked: it is to ignore them before it unblocks them.
        """
        link.set_inheritable(True)
        argv = [
            sys.executable,
            "-m",
            module,
            "--control-fd",
            str(link.fileno()),
            "--parent",
            str(os.getpid()),
            *arguments,
        ]
        # From this, the main thread: parent-death signals follow the thread that spawned.
        pid = os.posix_spawn(sys.executable, argv, environment, setsigmask=STOP_SIGNALS)
        child = self._children[pid] = Child(name, pid)
        return child

    def kill(self) -> None:
        """SIGKILL to every child."""
        for child in self._children.values():
            child.kill()

    async def kill_all(self, limit_s: float) -> None:
        """SIGKILL to everything below this process, until nothing is left or limit_s have passed."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while pids := self._pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if asyncio.get_running_loop().time() > deadline:
                _log.error("processes %s do not die; leaving them", self._pids())
                return
            await asyncio.sleep(0.01)  # grandchildren become children only when their parent is gone

    def close(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None and not child.ended.done():
                child.ended.set_result(exit_of(status))

    def _pids(self) -> set[int]:
        """Return every child there is, zombies and adopted ones included, where the kernel can tell."""
        pids = set(self._children)
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(
                FileNotFoundError
            ):  # a kernel without CONFIG_PROC_CHILDREN, or a thread that ended
                pids.update(int(pid) for pid in (task / "children").read_text().split())
        return pids
