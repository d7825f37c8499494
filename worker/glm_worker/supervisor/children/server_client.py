"""The supervisor's handle on the HTTP server's process (rank-0 pod only). It outlives generations."""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.margins import DRAINED_S, HUNG_UP_S, LAST_WORD_S
from glm_worker.messages import (
    Drain,
    Drained,
    EngineServing,
    FirstAnswer,
    FromServer,
    Full,
    InFlightTokensReply,
    InFlightTokensRequest,
    LoadChanged,
    MetricsReply,
    MetricsRequest,
    ServerFailed,
    ServerReady,
)
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.children import Child, Children
from glm_worker.supervisor.children.environment import child_environment
from glm_worker.supervisor.evidence.causes import Cause, Exit
from glm_worker.supervisor.evidence.watchdog import TICK_S

_log = logging.getLogger("glm_worker.supervisor")


_Question = MetricsRequest | InFlightTokensRequest
_Reply = MetricsReply | InFlightTokensReply


@dataclass(frozen=True)
class ServerEvents:
    """Who is told what a server says. on_serving, on_answer: of which generation; on_change: look again."""

    on_serving: Callable[[str], None]
    on_answer: Callable[[str], None]
    on_change: Callable[[], None]


class ServerClient:
    """One server process, from its start to its end."""

    def __init__(
        self,
        child: Child,
        link: ControlLink[FromServer],
        events: ServerEvents,
    ) -> None:
        self.pid = child.pid
        self.started_s = time.monotonic()
        self.ended: asyncio.Future[Exit] = child.ended
        self.is_listening = False
        self.has_served = False
        self.has_answered = False
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # of one that stands by
        self.stood_by = False  # it had imported all before it was taken
        self.full_because: str | None = None  # a sentence while it takes no further connection
        self.was_told_to_drain = False
        self.load: LoadChanged | None = None  # as it was said last, at load_s
        self.load_s = 0.0
        self._child = child
        self._link = link
        self._events = events
        self._listens_since_s: float | None = None
        self._ended_s: float | None = None
        self._last_word = ""
        self._drained: asyncio.Future[Drained] = asyncio.get_running_loop().create_future()
        self._awaited: dict[int, asyncio.Future[_Reply]] = {}  # by the id of the question
        self._ids = itertools.count()
        self._reader = asyncio.create_task(self._read())
        self.ended.add_done_callback(self._note_end)

    @classmethod
    async def start(
        cls,
        children: Children,
        settings: WorkerSettings,
        server_target: str,
        events: ServerEvents,
        *,
        is_spare: bool = False,
    ) -> "ServerClient":
        """Start the process. It is up when is_listening says so. is_spare: it stands by until it is told something."""
        ours, theirs = socket.socketpair()
        with theirs:
            environment = child_environment(settings, os.environ)
            module = "glm_worker.supervisor.children.server_process"
            arguments = ["--target", server_target, *(["--stand-by"] if is_spare else [])]
            child = children.spawn_python("server", module, arguments, environment, theirs)
        return cls(child, await ControlLink.open(ours, FromServer), events)

    @property
    def is_alive(self) -> bool:
        return not self.ended.done()

    @property
    def listened_s(self) -> float | None:
        """How long its port has been open, or was; None: it never was."""
        if self._listens_since_s is None:
            return None
        return (self._ended_s or time.monotonic()) - self._listens_since_s

    async def stands_by(self, limit_s: float) -> bool:
        """Return whether this process, which is not taken yet, has imported all and answers within the limit."""
        has_answered = await self.metrics(limit_s) is not None
        if has_answered and not self.stood_by and not self.taken.done():
            self.stood_by = True
            _log.info("process %d stands by for the server", self.pid)
        return has_answered

    def take(self) -> None:
        """Have this process, which stood by, be the server; what it is told next makes it begin."""
        self.started_s = time.monotonic()
        self.taken.set_result(None)

    def cause_of_end(self) -> Cause:
        """Describe the end. Needs the process to have ended."""
        ended = self.ended.result()
        message = f"the server (process {self.pid}) {ended}" + (f": {self._last_word}" if self._last_word else "")
        return Cause(rank=None, pod=0, reason="server_died", exit_code=ended.code, signal=ended.signal, message=message)

    def send(self, message: msgspec.Struct) -> None:
        self._link.send(message)

    async def drain(self, accept_s: float, deadline_s: float) -> None:
        """Return when the server has nothing left, or has died, or is past its own deadline."""
        self.was_told_to_drain = True
        self._link.send(Drain(accept_s=accept_s, deadline_s=deadline_s))
        limit_s = accept_s + deadline_s + DRAINED_S
        waited: set[asyncio.Future[Any]] = {self._drained, self.ended}
        await asyncio.wait(waited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if self._drained.done():
            _log.info("the server is drained; %d requests were ended early", self._drained.result().num_ended_early)
        elif self.ended.done():
            _log.error("the server ended before it was drained: it %s", self.ended.result())
        else:
            _log.error("the server did not drain within %.0f s", limit_s)

    async def metrics(self, limit_s: float) -> str | None:
        """Return the server's exposition text, or None if it does not answer in time."""
        reply = await self._ask(MetricsRequest(id=next(self._ids)), limit_s)
        return reply.text if isinstance(reply, MetricsReply) else None

    async def in_flight_tokens(self, limit_s: float) -> int | None:
        """Return the tokens of all requests that the server has now, or None if it does not answer in time."""
        reply = await self._ask(InFlightTokensRequest(id=next(self._ids)), limit_s)
        return reply.in_flight_tokens if isinstance(reply, InFlightTokensReply) else None

    async def _ask(self, question: _Question, limit_s: float) -> _Reply | None:
        """Return the reply, or None if the server does not answer in time or ends.

        Only time in which this process ran counts, a tick at most for each look: when a pod that was frozen as a whole
        wakes, the limit has long passed, and that says nothing about its server.
        """
        reply = self._awaited[question.id] = asyncio.get_running_loop().create_future()
        self._link.send(question)
        try:
            waited: set[asyncio.Future[Any]] = {reply, self.ended}
            waited_s = 0.0
            while waited_s < limit_s and not any(future.done() for future in waited):
                await asyncio.wait(waited, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                waited_s += TICK_S
            return reply.result() if reply.done() else None
        finally:
            del self._awaited[question.id]

    def kill(self, why: str = "") -> None:
        """SIGKILL. why is told as its last word, unless it has left one."""
        self._last_word = self._last_word or why
        self._child.kill()

    async def close(self) -> None:
        """End the process. A drained one may still push the last bytes of its answers to slow clients."""
        if self.was_told_to_drain:
            self._link.close()
            await asyncio.wait({self.ended}, timeout=HUNG_UP_S)
        self.kill()
        await self.ended
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader, LAST_WORD_S)  # for its last word
        self._link.close()

    async def _read(self) -> None:
        try:
            while (message := await self._link.receive()) is not None:
                self._hear(message)
        except ProtocolError:
            _log.exception("the server (process %d) spoke nonsense; killing it", self.pid)
            self.kill()

    def _hear(self, message: FromServer) -> None:
        match message:
            case ServerReady(port=port):
                _log.info("the server listens on port %d", port)
                self.is_listening = True
                self._listens_since_s = time.monotonic()
                self._events.on_change()
            case EngineServing() | FirstAnswer():
                self._note_service(message)
            case Full(reason=reason):
                self._note_room(reason)
            case MetricsReply(id=number) | InFlightTokensReply(id=number):
                self._note_reply(number, message)
            case LoadChanged():
                self.load, self.load_s = message, time.monotonic()
            case Drained():
                if not self._drained.done():
                    self._drained.set_result(message)
            case ServerFailed(message=last_word):
                self._last_word = last_word

    def _note_service(self, message: EngineServing | FirstAnswer) -> None:
        if not self.is_alive:
            return  # its last words: nobody serves now
        if isinstance(message, EngineServing):
            self.has_served = True
            self._events.on_serving(message.generation)
        else:
            self.has_answered = True
            self._events.on_answer(message.generation)

    def _note_end(self, _: asyncio.Future[Exit]) -> None:
        self._ended_s = time.monotonic()

    def _note_reply(self, number: int, message: _Reply) -> None:
        if (reply := self._awaited.get(number)) is not None and not reply.done():
            reply.set_result(message)

    def _note_room(self, full_because: str | None) -> None:
        self.full_because = full_because
        if full_because is None:
            _log.info("the server has room for connections again")
        else:
            _log.warning("the server takes no further connection: %s", full_because)
