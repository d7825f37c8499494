"""Keeps an HTTP server running beside the generations, and drains it when asked.

A server that dies takes its requests along and nothing else: the generation goes on, and the next server has to be
there within a second. So another process stands by that has imported all of it.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from glm_worker.messages import LoadChanged, WatchLoad
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.backoff import backoff_s
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.server_client import ServerClient, ServerEvents
from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.server_deaths import ServerDeaths

_log = logging.getLogger("glm_worker.supervisor")

CHECK_INTERVAL_S = 5.0
METRICS_LIMIT_S = 2.0
LOAD_FRESH_S = 3.0  # it is said every second: an older one is not known to be true
IN_FLIGHT_TOKENS_LIMIT_S = 0.5  # the operator waits 1.5 s for the page that this is a part of


class ServerKeeper:
    """At most one server at a time; the next one starts when it ends."""

    def __init__(
        self,
        settings: WorkerSettings,
        children: Children,
        server_target: str,
        events: ServerEvents,
        *,
        on_end: Callable[[Cause], None],
        first_words: Callable[[], list[msgspec.Struct]] = list,
    ) -> None:
        """on_end: told of each server that ended without being told to, after number has become the next one's.

        first_words: what each server is told as it starts, before anything else.
        """
        self.number = 0  # of the server that there is, or that comes next; a generation may meet several
        self.deaths = ServerDeaths(settings.backoff_base_s, settings.backoff_max_s)
        self.retry_at_s: float | None = None  # while the next server is put off
        self._settings = settings
        self._children = children
        self._target = server_target
        self._events = dataclasses.replace(events, on_serving=self._note_serving)
        self._on_serving = events.on_serving
        self._on_end = on_end
        self._first_words = first_words
        self._server: ServerClient | None = None
        self._spare: ServerClient | None = None
        self._wants_spare = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._drain_lag_s = 0.0
        self._is_load_watched = False

    @property
    def is_listening(self) -> bool:
        return self._server is not None and self._server.is_listening and not self._server.ended.done()

    @property
    def full_because(self) -> str | None:
        """Why the server takes no further connection, in a sentence; None: it does, or there is none."""
        return self._server.full_because if self._server is not None and self.is_listening else None

    async def keep(self) -> None:
        """Have a server for as long as this runs: start another when it ends, with backoff if it never worked."""
        while True:
            await self._back_off()
            self._server = server = await self._next_server()
            for message in self._first_words():
                server.send(message)
            if self._is_load_watched:
                server.send(WatchLoad(is_on=True))
            try:
                await asyncio.shield(server.ended)
            finally:
                await server.close()
            self.number += 1
            if not server.was_told_to_drain:
                cause = server.cause_of_end()
                self.deaths.note(cause, listened_s=server.listened_s, has_answered=server.has_answered)
                self._on_end(cause)
            self._events.on_change()

    async def stand_by(self) -> None:
        """Have a process that can become the next server at once, from when the one before it has served."""
        settings = self._settings
        num_failures = 0
        while True:
            await self._wants_spare.wait()
            await asyncio.sleep(backoff_s(num_failures, settings.backoff_base_s, settings.backoff_max_s))
            self._wants_spare.clear()
            spare = self._spare = await self._start(is_spare=True)
            try:
                await self._watch_spare(spare)
            finally:
                if not spare.taken.done():
                    self._spare = None
                    await spare.close()
            if spare.taken.done():
                num_failures = 0
                continue
            num_failures += 1
            _log.warning("the process that stands by for the server (%d) %s", spare.pid, spare.ended.result())
            self._wants_spare.set()

    async def watch(self) -> None:
        """Kill a server that does not answer, or never comes to listen: it would hold its clients for ever."""
        limit_s, import_limit_s = self._settings.heartbeat_limit_s, self._settings.import_limit_s
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            server = self._server
            if server is None or server.ended.done():
                continue
            if not server.is_listening:
                setting, allowed_s = ("heartbeat", limit_s) if server.stood_by else ("import", import_limit_s)
                if time.monotonic() - server.started_s >= allowed_s:
                    server.kill(f"it did not listen within {setting}_limit_s {allowed_s:g}")
                continue
            if await server.metrics(limit_s) is None and not server.ended.done():
                _log.error("the server (process %d) has not answered for %.0f s; killing it", server.pid, limit_s)
                server.kill(f"it had not answered its supervisor for {limit_s:g} s")

    def send(self, message: msgspec.Struct) -> None:
        """Tell the server, if there is one."""
        if self._server is not None:
            self._server.send(message)

    def watch_load(self, is_on: bool) -> None:
        """Have each server say its load from now on, or no more."""
        self._is_load_watched = is_on
        self.send(WatchLoad(is_on=is_on))

    @property
    def load(self) -> LoadChanged | None:
        """What the server said of its load within the last seconds; None: it said nothing, or there is none."""
        server = self._server
        if server is None or not self.is_listening or time.monotonic() - server.load_s > LOAD_FRESH_S:
            return None
        return server.load

    async def metrics(self) -> str:
        """Return the server's exposition text; empty while it has none to give."""
        if self._server is None or not self.is_listening:
            return ""
        return await self._server.metrics(METRICS_LIMIT_S) or ""

    async def in_flight_tokens(self) -> int | None:
        """Return the tokens of all requests that the server has now; None while there is none that answers."""
        if self._server is None or not self.is_listening:
            return None
        return await self._server.in_flight_tokens(IN_FLIGHT_TOKENS_LIMIT_S)

    async def drain(self, *, lag_s: float = 0.0) -> None:
        """Have the running server take nothing new; return when it has nothing left. Calls join each other.

        lag_s: how much longer than usual to accept, for a drain that endpoints learn of by a probe only.
        """
        if self._drain is None or lag_s < self._drain_lag_s:  # the server hurries up when it is told again
            self._drain_lag_s = lag_s
            self._drain = asyncio.create_task(self._drain_once(lag_s))
        await asyncio.shield(self._drain)

    def replace(self) -> None:
        """Be open again after a drain: a server that was told to drain gives way to a new one."""
        self._drain = None
        if self._server is not None and self._server.was_told_to_drain:
            self._server.kill()
            self._server = None  # it listens until the kernel has killed it, but no generation may start with it

    async def _watch_spare(self, spare: ServerClient) -> None:
        """Return when a process that stands by has ended, or is taken. One that hangs is killed before its turn."""
        limit_s = self._settings.import_limit_s
        waited: set[asyncio.Future[Any]] = {spare.ended, spare.taken}
        while not any(future.done() for future in waited):
            if await spare.stands_by(limit_s):
                limit_s = self._settings.heartbeat_limit_s
            elif not any(future.done() for future in waited):
                _log.error(
                    "the process that stands by (%d) has not answered for %.0f s; killing it", spare.pid, limit_s
                )
                self._spare = None
                spare.kill()
            await asyncio.wait(waited, timeout=CHECK_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)

    def _note_serving(self, generation: str) -> None:
        if self._spare is None:
            self._wants_spare.set()
        self._on_serving(generation)

    async def _back_off(self) -> None:
        wait_s = self.deaths.wait_s
        if wait_s == 0.0:
            return
        _log.warning("%d servers in a row never worked; the next is in %.1f s", self.deaths.in_a_row, wait_s)
        self.retry_at_s = time.monotonic() + wait_s
        try:
            await asyncio.sleep(wait_s)
        finally:
            self.retry_at_s = None

    async def _next_server(self) -> ServerClient:
        """Return the process that stands by, or another one."""
        spare, self._spare = self._spare, None
        if spare is None or spare.ended.done():
            return await self._start(is_spare=False)
        spare.take()
        return spare

    async def _start(self, *, is_spare: bool) -> ServerClient:
        return await ServerClient.start(self._children, self._settings, self._target, self._events, is_spare=is_spare)

    async def _drain_once(self, lag_s: float) -> None:
        server = self._server
        if server is None or not self.is_listening:
            return
        accept_s = self._settings.drain_accept_s + lag_s if server.has_served else 0.0  # else no endpoint points to it
        deadline_s = self._settings.drain_deadline_s
        _log.info("draining: accepting for %.1f s more, then %.0f s to finish", accept_s, deadline_s)
        await server.drain(accept_s, deadline_s)
