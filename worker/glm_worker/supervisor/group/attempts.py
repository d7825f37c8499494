"""What the group does: generation after generation over all pods, each an attempt to serve.

Level-triggered: whatever happens anywhere only wakes the loop, which then looks at what is true now. What went wrong
during a generation is collected until every rank of it is dead everywhere; only then it is decided whom to name.

A server that ends is no end of a generation: its ranks keep weights and KV cache, and meet the next server.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from glm_worker.assignment import endpoint_of
from glm_worker.heartbeat import Phase
from glm_worker.messages import GenerationEnded, GenerationStarting
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.backoff import backoff_s
from glm_worker.supervisor.evidence.causes import Cause, Failure, primary
from glm_worker.supervisor.evidence.watchdog import start_limit_cause
from glm_worker.supervisor.group.crew import Crew
from glm_worker.supervisor.group.peers import lost_pod
from glm_worker.supervisor.group.protocol import StartGeneration
from glm_worker.supervisor.group.release import Release
from glm_worker.supervisor.group.standing import Standing
from glm_worker.supervisor.management.telemetry import Telemetry
from glm_worker.supervisor.rundir import RunDir

_log = logging.getLogger("glm_worker.supervisor")

END_LIMIT_S = 7.0  # for followers to confirm that their ranks are dead; longer than they need to give up a zygote
NUM_PORT_PAIRS = 32  # settings.rendezvous_port is the first of twice as many
SECRET_BYTES = 16


class _GenerationOver(Exception):
    """Something failed: leave the attempt."""


class Attempts:
    """Makes one after another, for as long as the task of run lives."""

    def __init__(
        self,
        settings: WorkerSettings,
        run_dir: RunDir,
        incarnation: str,
        crew: Crew,
        release: Release,
        standing: Standing,
        telemetry: Telemetry,
        *,
        on_served: Callable[[], None],
    ) -> None:
        """on_served: called whenever the group begins to serve."""
        self.changed = asyncio.Event()
        self.failures: list[Failure] = []  # of this attempt
        self._settings = settings
        self._run_dir = run_dir
        self._incarnation = incarnation
        self._crew = crew
        self._release = release
        self._standing = standing
        self._telemetry = telemetry
        self._on_served = on_served
        self._server_died_s: float | None = None

    async def run(self) -> None:
        """Attempt for ever."""
        while True:
            await self._back_off()
            if self._release.is_over:
                self._standing.forget_service()
                self._release.finish()
            self.failures = []
            try:
                await self._until(self._is_assembled)
                await self._start()
                await self._until(lambda: False)
            except _GenerationOver:
                await self._end()

    def first_words(self) -> list[msgspec.Struct]:
        """Return what a server is told that comes while a generation lives: to meet it."""
        generation = self._standing.generation
        return [] if generation is None or self.failures else [self._meeting(generation)]

    # What happens

    def serve(self, generation: str) -> None:
        """Note that the server has met rank 0 of a generation."""
        standing, now_s = self._standing, time.monotonic()
        if generation != standing.generation or self.failures or standing.is_serving:
            return
        is_back = standing.has_loaded
        standing.serve(now_s, time.time())
        if is_back and self._server_died_s is not None:
            seconds = now_s - self._server_died_s
            self._telemetry.server_replaced(seconds)
            _log.info("generation=%s serves again, with another server after %.2f s", generation, seconds)
        self._on_served()
        self.changed.set()

    def answer(self, generation: str) -> None:
        """Note that a generation has finished a request."""
        if generation == self._standing.generation and self._standing.is_serving:
            self._standing.history.answer(time.time())

    def fail(self, generation: str | None, failure: Failure) -> None:
        """Note that something is dead without which the generation cannot go on."""
        if generation != self._standing.generation:
            return  # news from the past
        if all(failure.cause != known.cause for known in self.failures):
            _log.warning("generation=%s %s", generation, failure.cause)
            self.failures.append(failure)
        self._standing.interrupt(time.monotonic(), time.time())
        self.changed.set()

    def note(self, cause: Cause) -> None:
        """Note a failure of the attempt that is made now."""
        self.fail(self._standing.generation, Failure(cause=cause, at_s=time.monotonic()))

    def lose_peer(self, pod_index: int, why: str) -> None:
        """Note that a pod is lost; while there is no generation, none has lost it."""
        if self._standing.generation is not None:
            self.note(lost_pod(pod_index, why))

    def let_go(self, cause: Cause) -> None:
        """Note that a pod leaves with our leave; while there is no generation, none has lost it."""
        if self._standing.generation is not None:
            self.note(cause)

    def lose_server(self, cause: Cause) -> None:
        """Note that the server ended. A generation goes on; without one, it is an attempt that failed."""
        self._telemetry.server_died()
        if self._standing.generation is None:
            self.note(cause)
            return
        _log.warning("generation=%s %s; it waits for the next server", self._standing.generation, cause)
        self._server_died_s = time.monotonic()
        self._standing.interrupt(self._server_died_s, time.time())
        self._crew.pod.meet(self._crew.server.number)
        self.changed.set()

    # The loop

    async def _back_off(self) -> None:
        settings, standing = self._settings, self._standing
        num_failures = standing.history.consecutive_start_failures
        delay_s = backoff_s(num_failures, settings.backoff_base_s, settings.backoff_max_s)
        if delay_s == 0.0:
            return
        _log.warning("%d starts in a row failed; the next is in %.1f s", num_failures, delay_s)
        standing.retry_at_s = time.monotonic() + delay_s
        try:
            await asyncio.sleep(delay_s)
        finally:
            standing.retry_at_s = None

    def _is_assembled(self) -> bool:
        crew = self._crew
        return crew.pod.can_start and crew.server.is_listening and crew.peers.can_start

    async def _start(self) -> None:
        """Start a generation everywhere, and return when it serves."""
        settings, standing, crew = self._settings, self._standing, self._crew
        began_s = time.monotonic()
        number = standing.history.num_generations + 1
        generation = f"{self._incarnation}-{number}"
        store_port = settings.rendezvous_port + 2 * (number % NUM_PORT_PAIRS)
        interrupted_from_s = standing.served_until_s
        standing.begin(generation, time.time())
        _log.info("generation=%s starts: %d ranks in %d pods", generation, settings.world_size, settings.num_pods)
        crew.server.send(self._meeting(generation))
        secret = secrets.token_hex(SECRET_BYTES)
        start = StartGeneration(generation, secret, store_port=store_port, channel_port=store_port + 1)
        crew.peers.start(start)
        crew.pod.start(start, server=crew.server.number)
        try:
            async with asyncio.timeout(settings.start_limit_s):
                await self._until(lambda: standing.is_serving)
        except TimeoutError:
            if crew.server.is_listening or not self._have_ranks_loaded():
                self.note(start_limit_cause(standing.reports, settings.ranks_per_pod, settings.start_limit_s))
                raise _GenerationOver from None
            await self._until(lambda: standing.is_serving)  # its ranks have done their part
        now_s = time.monotonic()
        self._telemetry.serving(
            start_s=now_s - began_s,
            cold_start_s=standing.cold_start_s or 0.0,
            import_s=crew.pod.import_seconds,
            interrupted_s=None if interrupted_from_s is None else now_s - interrupted_from_s,
        )
        _log.info("generation=%s serves after %.2f s", generation, now_s - began_s)

    async def _end(self) -> None:
        """Kill the generation everywhere, and write down why it ended."""
        began_s = time.monotonic()
        standing, crew = self._standing, self._crew
        generation = standing.generation
        if generation is None and not self.failures:
            return  # pods have left while there was none
        if generation is None:  # a zygote or the server died before there was one: a start that failed all the same
            generation = f"{self._incarnation}-{standing.history.num_generations + 1}"
            standing.history.begin(generation, time.time())
        else:
            crew.peers.end(generation)
            await crew.pod.end()
            await self._wait_for_peers_end(generation)
        cause = primary(self.failures)
        if standing.generation is not None:
            crew.server.send(GenerationEnded(generation=generation, cause=str(cause)))
        standing.end(cause, time.time(), planned=self._release.is_over)
        self._telemetry.ended(cause)
        self._server_died_s = None
        seconds = time.monotonic() - began_s
        _log.warning("generation=%s ended: %s (all ranks dead after %.3f s)", generation, cause, seconds)

    async def _wait_for_peers_end(self, generation: str) -> None:
        deadline_s = time.monotonic() + END_LIMIT_S
        peers = self._crew.peers
        while not peers.is_over(generation):
            self.changed.clear()
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await self.changed.wait()
            except TimeoutError:
                peers.drop_unfinished(generation)

    async def _until(self, is_true: Callable[[], bool]) -> None:
        """Return when is_true; raise _GenerationOver when anything has failed or pods have been released."""
        while True:
            self.changed.clear()
            if self.failures or self._release.is_over:
                raise _GenerationOver
            if is_true():
                return
            await self.changed.wait()

    def _have_ranks_loaded(self) -> bool:
        reports = self._standing.reports
        return len(reports) == self._settings.world_size and all(each.view.phase == Phase.ready for each in reports)

    def _meeting(self, generation: str) -> GenerationStarting:
        endpoint = endpoint_of(self._run_dir.endpoint(generation), self._crew.server.number)
        return GenerationStarting(generation=generation, endpoint=endpoint)
