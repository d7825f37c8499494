"""How a group stops taking requests: for good, or while pods of it leave that were told to stop."""

import asyncio
import logging
from collections.abc import Callable

from glm_worker.supervisor.children.server_keeper import ServerKeeper
from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.group.peers import Peers

_log = logging.getLogger("glm_worker.supervisor")


class Release:
    """Drains the server, and lets pods go once it has. Not ready from the first moment."""

    def __init__(
        self,
        server: ServerKeeper,
        peers: Peers,
        readiness_lag_s: float,
        *,
        on_change: Callable[[], None],
        on_draining: Callable[[], None],
        on_leave: Callable[[Cause], None],
    ) -> None:
        """on_draining: who sends requests is to be told at once. on_leave: a pod of the generation goes."""
        self._server = server
        self._peers = peers
        self._readiness_lag_s = readiness_lag_s
        self._on_change = on_change
        self._on_draining = on_draining
        self._on_leave = on_leave
        self._is_stopping = False
        self._pods: asyncio.Task[None] | None = None

    @property
    def is_draining(self) -> bool:
        return self._is_stopping or self._pods is not None

    @property
    def is_over(self) -> bool:
        """Whether pods were let go and the group still does not take requests again."""
        return self._pods is not None and self._pods.done()

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is left."""
        self._is_stopping = True
        self._on_draining()
        await self._server.drain()

    def look(self) -> None:
        """Begin to release pods that were told to stop while this one was not. Call it several times a second."""
        if self._peers.leaving and self._pods is None and not self._is_stopping:
            self._pods = asyncio.create_task(self._release(self._peers.leaving))
            self._pods.add_done_callback(lambda _: self._on_change())

    def finish(self) -> None:
        """Take requests again after pods have left: with a new server, for the old one is drained."""
        self._pods = None
        self._server.replace()

    async def _release(self, first: list[int]) -> None:
        """Finish first, then end the generation.

        A pod may be gone by then without our leave, and back in a generation that the drained server cannot serve.
        """
        self._on_draining()
        _log.warning("pods %s were told to stop; draining the group for them", first)
        await self._server.drain(lag_s=self._readiness_lag_s)
        leaving = self._peers.leaving
        for pod in sorted({*first, *leaving}):
            self._on_leave(Cause(rank=None, pod=pod, reason="peer_lost", message=f"pod {pod} was told to stop"))
        for pod in leaving:
            self._peers.dismiss(pod)
