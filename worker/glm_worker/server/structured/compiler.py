"""The compile process as the server sees it: started at need, killed at its deadline, started again.

A grammar is compiled by code of others out of input of strangers. Whatever that costs, a loop, a crash or all memory,
it costs the request that asked for it: the process dies, the next request gets a new one. A process that stands still,
or that others end, is no request's fault: a new one compiles the same again, once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.structured.messages import CannotStart, Compile, Compiled, FromProcess, NotCompiled, Ready
from glm_worker.server.structured.recipe import Recipe

log = logging.getLogger(__name__)

PROCESS_MODULE = "glm_worker.server.structured.process"
_LAST_WORDS_S = 5.0  # between the end of a link and the end of its process: a core may be written
_LOOK_S = 0.1  # at the CPU time of one that has nearly had its share, at most so often
_OWN_FAULT_SIGNALS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class CompileLimits:
    """What one grammar may cost, and how many wait for their turn.

    cpu_s: of the process. wall_s: when one that has not had cpu_s by then is given up. num_bytes: of the compiled form,
    before it is packed. memory_bytes: what compiling may allocate beyond the idle process.
    """

    cpu_s: float = 10.0
    wall_s: float = 30.0
    start_deadline_s: float = 60.0  # it reads torch from disk
    num_bytes: int = 16 * 2**20  # a rank reads it in 0.3 s, beside its steps
    memory_bytes: int = 512 * 2**20
    num_waiting: int = 16


class _Lost(Exception):
    """The process was lost, and not by what it was compiling. The message says how, for the log."""


class Compiler:
    """One process, one grammar at a time. Use it in the event loop of the main thread: the process dies with that."""

    def __init__(self, folder: Path, limits: CompileLimits | None = None) -> None:
        self._folder = folder
        self._limits = limits or CompileLimits()
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._process: _Process | None = None
        self._is_closed = False
        self.num_starts = 0

    async def start(self) -> None:
        """Start the process now, so that the first request need not wait. It may fail: a request tries again."""
        async with self._turn:
            with contextlib.suppress(Overloaded, _Lost):
                await self._running()

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object] = lambda: None) -> bytes:
        """Return the packed grammar. on_begin: its turn has come. Raises RequestRefused and Overloaded.

        Cancelled before its turn it costs nothing; later it costs the process.
        """
        if self._num_waiting >= self._limits.num_waiting:
            raise Overloaded(f"{self._num_waiting} other formats wait to be compiled; try again", retry_after_s=1)
        self._num_waiting += 1
        try:
            async with self._turn:
                on_begin()
                return await self._compiled_at_second_try(recipe)
        finally:
            self._num_waiting -= 1

    async def close(self) -> None:
        """End the process and reap it. A compilation that runs fails, and so do later ones."""
        self._is_closed = True
        if self._process is not None:
            await self._kill(self._process)

    async def _running(self) -> "_Process":
        """Return the process, started if there is none. Raises _Lost, and Overloaded where a new one would not help."""
        if self._process is not None and self._process.is_alive:
            return self._process
        if self._process is not None:
            await self._kill(self._process)
        if self._is_closed:
            raise Overloaded("the server stops; try again", retry_after_s=1)
        self.num_starts += 1
        process = self._process = await _Process.start(self._folder, self._limits)
        try:
            async with asyncio.timeout(self._limits.start_deadline_s):
                answer = await process.receive()
        except TimeoutError:
            answer = CannotStart(f"it was not ready after {self._limits.start_deadline_s:g} s")
        except asyncio.CancelledError:
            await self._kill(process)  # nobody would take its first message
            raise
        if isinstance(answer, Ready):
            return process
        code = None if isinstance(answer, CannotStart) else await process.ended()
        await self._kill(process)
        if not isinstance(answer, CannotStart):
            raise _Lost(f"it ended with code {code} before it was ready")
        log.error("the process that compiles grammars cannot start: %s", answer.reason)
        raise Overloaded("structured output is not available now; try again", retry_after_s=5)

    async def _compiled_at_second_try(self, recipe: Recipe) -> bytes:
        try:
            return await self._compiled(await self._running(), recipe)
        except _Lost as lost:
            log.warning("lost the process that compiles grammars: %s; a new one tries again", lost)
        try:
            return await self._compiled(await self._running(), recipe)
        except _Lost as lost:
            log.error("lost the process that compiles grammars twice: %s", lost)
            raise Overloaded("the format could not be compiled now; try again", retry_after_s=1) from lost

    async def _compiled(self, process: "_Process", recipe: Recipe) -> bytes:
        """Raises RequestRefused, and _Lost."""
        process.link.send(Compile(recipe))
        try:
            answer = await self._answer(process)
        except (asyncio.CancelledError, _Lost, RequestRefused):
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
                if code is None or (code < 0 and -code not in _OWN_FAULT_SIGNALS):
                    raise _Lost(f"it ended with code {code}")
                log.warning("the process that compiles grammars ended with code %s; the next one starts it anew", code)
                raise RequestRefused("the format cannot be compiled; make it smaller", code="schema_too_large")

    async def _answer(self, process: "_Process") -> FromProcess | None:
        """Wait for the answer. Raises RequestRefused when it takes too much CPU time, _Lost when too little comes."""
        limits, loop = self._limits, asyncio.get_running_loop()
        until, cpu_before = loop.time() + limits.wall_s, process.cpu_s()
        receiving = asyncio.create_task(process.receive())
        try:
            wait_s = limits.cpu_s
            while not (await asyncio.wait([receiving], timeout=wait_s))[0]:
                used_s = process.cpu_s() - cpu_before
                if used_s >= limits.cpu_s:
                    log.warning("killed the process that compiles grammars: one took more than %g s", limits.cpu_s)
                    raise RequestRefused(
                        f"the format takes more than {limits.cpu_s:g} s to compile; make it smaller",
                        code="schema_too_large",
                    )
                left_s = until - loop.time()
                if left_s <= 0:
                    raise _Lost(f"it had {used_s:.1f} s of CPU time in {limits.wall_s:g} s")
                wait_s = max(min(limits.cpu_s - used_s, left_s), _LOOK_S)
            return receiving.result()
        finally:
            receiving.cancel()

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

    def cpu_s(self) -> float:
        """Return the CPU time of the process until now; none once it is gone."""
        try:
            stat = Path(f"/proc/{self._popen.pid}/stat").read_bytes()
        except OSError:
            return 0.0
        fields = stat[stat.rindex(b")") + 2 :].split()  # from the state on
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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
