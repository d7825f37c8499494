"""The compile process as the server sees it: forked at need, killed at its deadline, forked again.

A grammar is compiled by code of others out of input of strangers. Whatever that costs, a loop, a crash or all memory,
it costs the request that asked for it: the process dies, the next request gets a new one. A process that stands still,
or that others end, is no request's fault: a new one compiles the same again, once.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.structured.messages import (
    Begin,
    CannotStart,
    Compile,
    Compiled,
    Ended,
    FromProcess,
    Kill,
    NotCompiled,
    Ready,
)
from glm_worker.server.structured.recipe import Recipe

log = logging.getLogger(__name__)

_LAST_WORDS_S = 5.0  # between the end of a link and the word of how its process ended
_OWN_FAULT_SIGNALS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class CompileLimits:
    """What one grammar may cost, and how many wait for their turn.

    cpu_s: of the process. wall_s: when one that has neither answered nor had cpu_s by then is given up. num_bytes: of
    the compiled form, before it is packed. memory_bytes: what compiling may allocate beyond the idle process.
    """

    cpu_s: float = 10.0
    wall_s: float = 30.0
    start_deadline_s: float = 60.0  # the zygote that forks it may have to import torch first
    num_bytes: int = 16 * 2**20  # a rank reads it in 0.3 s, beside its steps
    memory_bytes: int = 512 * 2**20
    num_waiting: int = 16


class _Lost(Exception):
    """The process was lost, and not by what it was compiling. The message says how, for the log."""


class Compiler:
    """One process, one grammar at a time.

    path: of the Unix socket where a process is forked for who connects; None until the supervisor has said it.
    """

    def __init__(self, folder: Path, limits: CompileLimits | None = None) -> None:
        self.path: str | None = None
        self.num_starts = 0
        self._folder = folder
        self._limits = limits or CompileLimits()
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._process: _Process | None = None
        self._is_closed = False

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
        process = self._process = await self._started()
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

    async def _started(self) -> "_Process":
        """Ask for a process. Raises Overloaded."""
        limits = self._limits
        begin = Begin(str(self._folder), limits.cpu_s, memory_bytes=limits.memory_bytes, num_bytes=limits.num_bytes)
        try:
            return await _Process.start(self.path, begin)
        except OSError as error:
            log.error("the process that compiles grammars cannot be asked for: %s", error)
            raise Overloaded("structured output is not available now; try again", retry_after_s=5) from error

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
                raise self._fault(code)

    def _fault(self, code: int | None) -> RequestRefused | _Lost:
        """Return whose fault it is that the process ended while it compiled. code: an exit code or minus a signal."""
        if code == -signal.SIGPROF:
            log.warning("the process that compiles grammars ended: one took more than %g s", self._limits.cpu_s)
            reason = f"the format takes more than {self._limits.cpu_s:g} s to compile; make it smaller"
            return RequestRefused(reason, code="schema_too_large")
        if code is None or (code < 0 and -code not in _OWN_FAULT_SIGNALS):
            return _Lost(f"it ended with code {code}")
        log.warning("the process that compiles grammars ended with code %s; the next one starts it anew", code)
        return RequestRefused("the format cannot be compiled; make it smaller", code="schema_too_large")

    async def _answer(self, process: "_Process") -> FromProcess | None:
        """Wait for the answer. Raises _Lost when none comes: the process stands still, or gets no CPU time."""
        limit_s = self._limits.wall_s
        try:
            async with asyncio.timeout(limit_s):
                return await process.receive()
        except TimeoutError:
            raise _Lost(f"it had neither answered nor used its CPU time after {limit_s:g} s") from None

    async def _kill(self, process: "_Process") -> None:
        if self._process is process:
            self._process = None
        await process.kill()


class _Process:
    """A compile process: the link to it, and the connection to the zygote that is its life."""

    def __init__(self, link: ControlLink[FromProcess], life: ControlLink[Ended]) -> None:
        self.link = link
        self._life = life
        self._ending = asyncio.create_task(self._hear_end())

    @classmethod
    async def start(cls, path: str | None, begin: Begin) -> "_Process":
        """Have a process forked that serves a link of ours. Raises OSError."""
        if path is None:
            raise FileNotFoundError("the supervisor has not said where")
        with contextlib.ExitStack() as opened:
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                connection = opened.enter_context(socket.socket(socket.AF_UNIX))
                connection.setblocking(False)  # so that a queue that is full is an error
                connection.connect(path)
                socket.send_fds(connection, [b"\0"], [theirs.fileno()])
            link: ControlLink[FromProcess] = await ControlLink.open(ours, FromProcess)
            opened.callback(link.close)
            life: ControlLink[Ended] = await ControlLink.open(connection, Ended)
            opened.pop_all()
        link.send(begin)
        return cls(link, life)

    @property
    def is_alive(self) -> bool:
        return not self._ending.done()

    async def receive(self) -> FromProcess | None:
        """Return the next message; None when the process is gone, or sends what is none."""
        try:
            return await self.link.receive()
        except ProtocolError:
            log.exception("the process that compiles grammars sent an invalid message")
            return None

    async def ended(self) -> int | None:
        """Return how the process ended, which closed its link; None where nobody says."""
        await asyncio.wait({self._ending}, timeout=_LAST_WORDS_S)
        return self._ending.result() if self._ending.done() else None

    async def kill(self) -> None:
        """End the process, and wait until it is gone."""
        self.link.close()
        self._life.send(Kill())
        try:
            await self.ended()
        finally:
            self._ending.cancel()
            self._life.close()

    async def _hear_end(self) -> int | None:
        try:
            last_word = await self._life.receive()
        except ProtocolError:
            log.exception("the zygote sent an invalid message")
            return None
        return None if last_word is None else last_word.code
