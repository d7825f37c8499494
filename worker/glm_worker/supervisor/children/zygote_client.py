"""The supervisor's handle on its zygote process."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable

from glm_worker.assignment import RankAssignment
from glm_worker.control import ControlLink, ProtocolError
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.children import Child, Children
from glm_worker.supervisor.children.environment import zygote_environment
from glm_worker.supervisor.children.zygote import Event, ForkRank, KillRanks, Ping, ZygoteReady
from glm_worker.supervisor.evidence.causes import Exit

_log = logging.getLogger("glm_worker.supervisor")


class ZygoteClient:
    """One zygote, from its start to its end. After ended is done, the object is of no more use."""

    def __init__(self, child: Child, link: ControlLink[Event], on_event: Callable[[Event], None]) -> None:
        self.pid = child.pid
        self.ended: asyncio.Future[Exit] = child.ended
        self.import_seconds: float | None = None  # None: not ready yet
        self.is_told = False  # its end, to whom it matters; or it is our own doing
        self.started_s = time.monotonic()
        self.why_killed = ""
        self._child = child
        self._link = link
        self._on_event = on_event
        self._unanswered_pings = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        children: Children,
        settings: WorkerSettings,
        rank_target: str,
        on_event: Callable[[Event], None],
        listener: socket.socket,
    ) -> "ZygoteClient":
        """Start the process. It is ready when import_seconds is set, seconds later.

        listener: where it forks what compiles grammars for who connects; who comes before it is ready waits.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            environment = zygote_environment(settings, os.environ)
            module = "glm_worker.supervisor.children.zygote"
            arguments = ["--target", rank_target, "--compile-fd", str(listener.fileno())]
            listener.set_inheritable(True)
            child = children.spawn_python("zygote", module, arguments, environment, theirs)
            listener.set_inheritable(False)  # the server must not hold it
        return cls(child, await ControlLink.open(ours, Event), on_event)

    @property
    def is_ready(self) -> bool:
        return self.import_seconds is not None and not self.ended.done()

    def fork(self, assignment: RankAssignment) -> None:
        self._link.send(ForkRank(assignment=assignment))

    def kill_ranks(self) -> None:
        self._link.send(KillRanks())

    def ping(self) -> int:
        """Ask for a sign of life; return how many pings in a row are unanswered by now."""
        unanswered = self._unanswered_pings
        self._unanswered_pings += 1
        self._link.send(Ping())
        return unanswered

    def kill(self) -> None:
        """SIGKILL to the zygote, and by the kernel's parent-death signal to its ranks."""
        self._child.kill()

    async def close(self) -> None:
        """Kill, and wait for the end."""
        self.kill()
        await self.ended
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self._link.close()

    async def _read(self) -> None:
        try:
            while (event := await self._link.receive()) is not None:
                if isinstance(event, ZygoteReady):
                    self.import_seconds = event.import_seconds
                self._unanswered_pings = 0  # whatever it says, it is alive
                self._on_event(event)
        except ProtocolError:
            _log.exception("zygote %d spoke nonsense; killing it", self.pid)
            self.kill()
