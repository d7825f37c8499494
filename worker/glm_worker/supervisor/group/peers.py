"""The leader's side of the link to its followers: who is here, what they report, and telling them what to do."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.listening import listen
from glm_worker.margins import TOLD_S
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.evidence.causes import Cause, Failure
from glm_worker.supervisor.evidence.watchdog import TICK_S, RankReport, Stopwatch
from glm_worker.supervisor.group.protocol import (
    AgedCause,
    Dismissed,
    EndGeneration,
    Hello,
    Leaving,
    PodFailed,
    PodOver,
    Refused,
    Report,
    StartGeneration,
    ToLeader,
    Welcome,
    hello_of,
    refusal,
)

_log = logging.getLogger("glm_worker.supervisor")

SILENT_S = 4 * TICK_S  # a pod reports every tick
REFUSAL_KEPT_S = 10.0  # one that is refused dials again well within it


class _Peer:
    """One connected follower."""

    def __init__(self, hello: Hello, link: ControlLink[ToLeader]) -> None:
        self.pod_index = hello.pod_index
        self.incarnation = hello.incarnation
        self.link = link
        self.report = Report(generation=None, can_start=False, ranks=[])
        self.started: str | None = None  # the last generation that it was told to start
        self.over: str | None = None  # the last generation of which it has no rank left
        self.is_leaving = False
        self.is_dismissed = False
        self.num_messages = 0
        self.silence = Stopwatch()


class Peers:
    """All followers of a group. Every change is told to on_change, every failure to on_failure."""

    def __init__(
        self,
        settings: WorkerSettings,
        incarnation: str,
        *,
        on_change: Callable[[], None],
        on_failure: Callable[[str | None, Failure], None],
        on_lost: Callable[[int, str], None],
    ) -> None:
        self._settings = settings
        self._incarnation = incarnation
        self._on_change = on_change
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._peers: dict[int, _Peer] = {}
        self._hello: Hello | None = None  # what this pod would say
        self._rereading: asyncio.Task[None] | None = None
        self._refused: dict[int, tuple[str, float]] = {}  # by pod index: why, and when
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Open the coordinator's port; a group of one pod has none."""
        settings = self._settings
        if settings.num_pods == 1:
            return
        self._hello = await asyncio.to_thread(hello_of, settings, self._incarnation)  # storage may be slow
        listener = listen(settings.host, settings.coordinator_port, setting="GLM_COORDINATOR_PORT")
        self._server = await asyncio.start_server(self._accept, sock=listener)

    @property
    def refused(self) -> list[str]:
        """Why pods that are not connected were refused, of those that still dial."""
        now_s = time.monotonic()
        known = [(pod, *self._refused[pod]) for pod in self.missing if pod in self._refused]
        return [reason for _, reason, at_s in known if now_s - at_s < REFUSAL_KEPT_S]

    @property
    def missing(self) -> list[int]:
        """Pods that are not connected."""
        return [pod for pod in range(1, self._settings.num_pods) if pod not in self._peers]

    @property
    def unfit(self) -> list[int]:
        """Pods that are not here, or not ready to fork their ranks."""
        fit = {peer.pod_index for peer in self._peers.values() if peer.report.can_start and not peer.is_dismissed}
        return [pod for pod in range(1, self._settings.num_pods) if pod not in fit]

    @property
    def leaving(self) -> list[int]:
        """Pods that were told to stop and wait to be dismissed."""
        return [peer.pod_index for peer in self._peers.values() if peer.is_leaving and not peer.is_dismissed]

    @property
    def can_start(self) -> bool:
        """Whether every pod is here and ready to fork its ranks."""
        return not self.unfit

    def reports(self, generation: str) -> list[RankReport]:
        """Return what the followers last said about their ranks of this generation."""
        return [
            rank for peer in self._peers.values() if peer.report.generation == generation for rank in peer.report.ranks
        ]

    def is_any_silent(self) -> bool:
        """Whether a pod has said nothing for so long that what it last reported may be out of date."""
        return any(peer.silence.still_s >= SILENT_S for peer in self._peers.values())

    def start(self, start: StartGeneration) -> None:
        self.send(start)
        for peer in self._peers.values():
            peer.started = start.generation

    def send(self, message: msgspec.Struct) -> None:
        """Tell all of them."""
        for peer in self._peers.values():
            peer.link.send(message)

    def dismiss(self, pod_index: int) -> None:
        """Let a pod that is leaving go; it takes part in no generation any more."""
        peer = self._peers[pod_index]
        peer.is_dismissed = True
        peer.link.send(Dismissed())

    def end(self, generation: str) -> None:
        self.send(EndGeneration(generation=generation))

    def is_over(self, generation: str) -> bool:
        """Whether no connected follower has a rank of this generation left.

        One that is not connected kills its own, and one that has come back since never had one.
        """
        return not self._unfinished(generation)

    def drop_unfinished(self, generation: str) -> None:
        """Give up the followers that did not confirm the end of a generation."""
        for peer in self._unfinished(generation):
            self._lose(peer, "it did not confirm the end of the generation")

    def check_silence(self, now_s: float) -> None:
        """Drop who has said nothing for peer_limit_s. Call it several times a second."""
        for peer in list(self._peers.values()):
            silent_s = peer.silence.look(peer.num_messages, now_s)
            if silent_s >= self._settings.peer_limit_s:
                self._lose(peer, f"it has said nothing for {silent_s:.1f} s")

    def _unfinished(self, generation: str) -> list[_Peer]:
        return [peer for peer in self._peers.values() if peer.started == generation and peer.over != generation]

    async def close(self) -> None:
        """Hang up. Followers kill their ranks when they see it."""
        if self._server is not None:
            self._server.close()
        peers, self._peers = list(self._peers.values()), {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await asyncio.gather(*(peer.link.flush() for peer in peers))
        for peer in peers:
            peer.link.close()
        tasks = [*self._connections, *([self._rereading] if self._rereading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(ControlLink(reader, writer, ToLeader)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _talk(self, link: ControlLink[ToLeader]) -> None:
        """Serve one connection from its greeting to its end."""
        peer = None
        try:
            peer = await self._greet(link)
            while peer is not None and (message := await link.receive()) is not None:
                peer.num_messages += 1
                self._hear(peer, message)
        except ProtocolError as error:
            _log.warning("a connection to the coordinator's port speaks another protocol: %s", error)
        finally:
            link.close()
            if peer is not None and self._peers.get(peer.pod_index) is peer:
                self._lose(peer, "its connection ended")

    async def _greet(self, link: ControlLink[ToLeader]) -> _Peer | None:
        assert self._hello is not None
        try:
            async with asyncio.timeout(self._settings.peer_limit_s):
                hello = await link.receive()
        except TimeoutError:
            return None
        if not isinstance(hello, Hello):
            return None
        reason = refusal(hello, self._hello)
        if reason is not None:
            if self._refused.get(hello.pod_index, ("", 0.0))[0] != reason:  # it dials again and again: say it once
                _log.error("refused a peer: %s", reason)
            self._refused[hello.pod_index] = reason, time.monotonic()
            self._reread()
            link.send(Refused(reason=reason))
            await link.flush()
            return None
        if (old := self._peers.get(hello.pod_index)) is not None:
            self._lose(old, f"another process ({hello.incarnation}) took its place")
        peer = self._peers[hello.pod_index] = _Peer(hello, link)
        self._refused.pop(hello.pod_index, None)
        link.send(Welcome(incarnation=self._incarnation))
        _log.info("pod %d (incarnation %s) joined", peer.pod_index, peer.incarnation)
        self._on_change()
        return peer

    def _reread(self) -> None:
        """Look for a model that was not there when this pod began; who was refused dials again.

        One that was read stays: the server has it, so a pod with another does not fit until this one is restarted.
        """
        assert self._hello is not None
        if not self._hello.has_model and (self._rereading is None or self._rereading.done()):
            self._rereading = asyncio.create_task(self._read_model())

    async def _read_model(self) -> None:
        self._hello = await asyncio.to_thread(hello_of, self._settings, self._incarnation)

    def _hear(self, peer: _Peer, message: ToLeader) -> None:
        match message:
            case Report():
                peer.report = message
            case PodFailed(generation=generation, failure=failure):
                self._on_failure(generation, _failure(failure))
            case PodOver(generation=generation, failures=failures):
                for each in failures:
                    self._on_failure(generation, _failure(each))
                peer.over = generation
            case Leaving():
                peer.is_leaving = True
            case Hello():
                _log.warning("pod %d greets twice", peer.pod_index)
        self._on_change()

    def _lose(self, peer: _Peer, why: str) -> None:
        del self._peers[peer.pod_index]
        peer.link.close()
        _log.warning("lost pod %d (incarnation %s): %s", peer.pod_index, peer.incarnation, why)
        self._on_lost(peer.pod_index, why)
        self._on_change()


def _failure(aged: AgedCause) -> Failure:
    return Failure(cause=aged.cause, at_s=time.monotonic() - aged.age_s)


def lost_pod(pod_index: int, why: str) -> Cause:
    """Describe the loss of a pod."""
    return Cause(rank=None, pod=pod_index, reason="peer_lost", message=f"pod {pod_index} is lost: {why}")
