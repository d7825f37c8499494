"""The compile process as the server sees it: started at need, killed at its deadline, started again.

A grammar is compiled by code of others out of input of strangers. Whatever that costs, a hang, a crash or all memory,
it costs the request that asked for it: the process dies, the next request gets a new one.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.structured.messages import CannotStart, Compile, Compiled, FromProcess, NotCompiled, Ready
from glm_worker.server.structured.recipe import Recipe

log = logging.getLogger(__name__)

PROCESS_MODULE = "glm_worker.server.structured.process"
_LAST_WORDS_S = 5.0  # between the end of a link and the end of its process: a core may be written
_OWN_FAULT_SIGNALS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class CompileLimits:
    """What one grammar may cost, and how many wait for their turn.

    num_bytes: of the compiled form. memory_bytes: what compiling may allocate beyond the idle process.
    """

    deadline_s: float = 10.0
    start_deadline_s: float = 60.0  # it reads torch from disk
    num_bytes: int = 8 * 2**20
    memory_bytes: int = 512 * 2**20
    num_waiting: int = 16


class Compiler:
    """One process, one grammar at a time. Use it in the event loop of the main thread: the process dies with that."""

    def __init__(self, folder: Path, limits: CompileLimits | None = None) -> None:
        self._folder = folder
        self._limits = limits or CompileLimits()
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._process: _Process | None = None
        self.num_starts = 0

    async def start(self) -> None:
        """Start the process now, so that the first request need not wait. It may fail: a request tries again."""
        async with self._turn:
            with contextlib.suppress(Overloaded):
                await self._running()

    async def compile(self, recipe: Recipe) -> bytes:
        """Return the compiled form. Raises RequestRefused and Overloaded."""
        if self._num_waiting >= self._limits.num_waiting:
            raise Overloaded(f"{self._num_waiting} other formats wait to be compiled; try again", retry_after_s=1)
        self._num_waiting += 1
        try:
            async with self._turn:
                process = await self._running()
                return await self._compiled(process, recipe)
        finally:
            self._num_waiting -= 1

    async def close(self) -> None:
        """End the process and reap it. A compilation that runs fails."""
        if self._process is not None:
            await self._kill(self._process)

    async def _running(self) -> "_Process":
        """Return the process, started if there is none."""
        if self._process is not None and self._process.is_alive:
            return self._process
        if self._process is not None:
            await self._kill(self._process)
        self.num_starts += 1
        process = self._process = await _Process.start(self._folder, self._limits)
        try:
            async with asyncio.timeout(self._limits.start_deadline_s):
                answer = await process.receive()
        except TimeoutError:
            answer = CannotStart(f"it was not ready after {self._limits.start_deadline_s:g} s")
        if isinstance(answer, Ready):
            return process
        reason = answer.reason if isinstance(answer, CannotStart) else f"it ended with code {await process.ended()}"
        await self._kill(process)
        log.error("the process that compiles grammars cannot start: %s", reason)
        raise Overloaded("structured output is not available now; try again", retry_after_s=5)

    async def _compiled(self, process: "_Process", recipe: Recipe) -> bytes:
        process.link.send(Compile(recipe))
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                answer = await process.receive()
        except TimeoutError:
            await self._kill(process)
            log.warning("killed the process that compiles grammars: one took more than %g s", self._limits.deadline_s)
            raise RequestRefused(
                f"the format takes more than {self._limits.deadline_s:g} s to compile; make it smaller",
                code="schema_too_large",
            ) from None
        except asyncio.CancelledError:
            await self._kill(process)  # its answer would be taken for the next one's
            raise
        match answer:
            case Compiled(compiled=compiled):
                return compiled
            case NotCompiled(reason=reason, is_too_large=is_too_large):
                raise RequestRefused(reason, code="schema_too_large" if is_too_large else "invalid_schema")
            case _:
                code = await process.ended()
                await self._kill(process)
                raise self._lost(code)

    def _lost(self, code: int | None) -> Exception:
        """Return what to say when the process died. By itself: this format did that; by others' hands: it did not."""
        log.warning("the process that compiles grammars ended with code %s; the next format starts a new one", code)
        if code is None or (code < 0 and -code not in _OWN_FAULT_SIGNALS):
            return Overloaded("the format could not be compiled now; try again", retry_after_s=1)
        return RequestRefused("the format cannot be compiled; make it smaller", code="schema_too_large")

    async def _kill(self, process: "_Process") -> None:
        if self._process is process:
            self._process = None
        await process.kill()


class _Process:
    """A started compile process and the link to it."""

    def __init__(self, popen: "asyncio.subprocess.Process", link: ControlLink[FromProcess]) -> None:
        self._popen = popen
        self.link = link

    @classmethod
    async def start(cls, folder: Path, limits: CompileLimits) -> "_Process":
        ours, theirs = socket.socketpair()
        try:
            popen = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", PROCESS_MODULE, "--link-fd", str(theirs.fileno()), "--model", str(folder)),
                *("--parent", str(os.getpid())),
                *("--memory-bytes", str(limits.memory_bytes), "--num-bytes", str(limits.num_bytes)),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            log.error("the process that compiles grammars cannot be started: %s", error)
            raise Overloaded("structured output is not available now; try again", retry_after_s=5) from error
        finally:
            theirs.close()
        link: ControlLink[FromProcess] = await ControlLink.open(ours, FromProcess)
        return cls(popen, link)

    @property
    def is_alive(self) -> bool:
        return self._popen.returncode is None

    async def receive(self) -> FromProcess | None:
        """Return the next message; None when the process is gone, or sends what is none."""
        try:
            return await self.link.receive()
        except ProtocolError:
            log.exception("the process that compiles grammars sent an invalid message")
            return None

    async def ended(self) -> int | None:
        """Return how the process ended, which closed its link; None when it does not end and was killed here."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                return await self._popen.wait()
        except TimeoutError:
            await self.kill()
            return None

    async def kill(self) -> None:
        """End the process and reap it."""
        self.link.close()
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        await self._popen.wait()
