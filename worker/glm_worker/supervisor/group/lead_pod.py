"""The leading supervisor (pod 0): runs generation after generation over all pods of the group.

Level-triggered: whatever happens anywhere only wakes the loop, which then looks at what is true now. What went wrong
during a generation is collected until every rank of it is dead everywhere; only then it is decided whom to name.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from glm_worker.messages import (
    CompileAt,
    GenerationEnded,
    GenerationStarting,
    Policy,
    SetPolicy,
    SetSlo,
    Slo,
    Unavailable,
)
from glm_worker.server.policy import policy_digest
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.backoff import backoff_s
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.server_keeper import ServerKeeper
from glm_worker.supervisor.evidence.causes import Cause, Failure, primary
from glm_worker.supervisor.evidence.history import History, State
from glm_worker.supervisor.evidence.watchdog import TICK_S, RankReport, judge, start_limit_cause
from glm_worker.supervisor.group.peers import Peers, lost_pod
from glm_worker.supervisor.group.pod import Pod
from glm_worker.supervisor.group.protocol import READY_GRACE_S, Dismissed, StartGeneration, Status
from glm_worker.supervisor.management.load import Line, LoadBoard, line_of
from glm_worker.supervisor.management.telemetry import Telemetry
from glm_worker.supervisor.rundir import RunDir
from glm_worker.supervisor.told.kept import kept_policy, kept_slo
from glm_worker.supervisor.told.policy_wait import PolicyWait

_log = logging.getLogger("glm_worker.supervisor")

END_LIMIT_S = 7.0  # for followers to confirm that their ranks are dead; longer than they need to give up a zygote
NUM_PORT_PAIRS = 32  # settings.rendezvous_port is the first of twice as many
SECRET_BYTES = 16
MISSING_RETRY_S = 10  # about what a pod needs to come back


class _GenerationOver(Exception):
    """Something failed: leave the attempt."""


class LeadPod:
    """One life of the group as seen by pod 0."""

    def __init__(
        self,
        settings: WorkerSettings,
        children: Children,
        run_dir: RunDir,
        incarnation: str,
        *,
        rank_target: str,
        server_target: str,
        policy: Policy | None = None,
    ) -> None:
        """policy: what the settings say; it holds until another is put. Default: that of no settings at all."""
        self._settings = settings
        self._run_dir = run_dir
        self._incarnation = incarnation
        self._born_s = time.monotonic()
        self._changed = asyncio.Event()
        self._history = History(time.time())
        self._telemetry = Telemetry(settings.identity)
        whose = f"{settings.namespace}/{settings.group}"
        self._slo = kept_slo(run_dir.lasting("slo", whose))
        self._policy = kept_policy(run_dir.lasting("policy", whose))
        self._own_policy = policy or Policy()
        self._policy_wait = PolicyWait(is_on=settings.awaits_policy and self._policy.value is None)
        is_own_meant = self._own_policy != Policy() and not settings.awaits_policy
        if is_own_meant and self._policy.value not in (None, self._own_policy):
            _log.warning("the policy that was put, %s, holds instead of that of the settings", self._policy.digest)
        self._failures: list[Failure] = []
        self._generation: str | None = None
        self._is_serving = False
        self._served_until_s: float | None = None
        self._retry_at_s: float | None = None
        self._incomplete_since_s: float | None = None  # no generation, and not every other pod could start one
        self._unavailable: Unavailable | None = None
        self._reports: list[RankReport] = []
        self._is_stopping = False
        self._release: asyncio.Task[None] | None = None  # draining because other pods leave
        wake = self._changed.set
        self._pod = Pod(settings, children, run_dir, rank_target, on_change=wake, on_failure=self._on_failure)
        self._server = ServerKeeper(
            settings,
            children,
            server_target,
            on_serving=self._on_serving,
            on_answer=self._on_answer,
            on_change=wake,
            on_failure=self._note,
            first_words=self._first_words,
        )
        self._cold_start_s: float | None = None
        self.load = LoadBoard(self._load_line, self._server.watch_load)
        self._peers = Peers(
            settings, incarnation, on_change=wake, on_failure=self._on_failure, on_lost=self._on_lost_peer
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._peers.listen()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pod.keep_zygote())
            tasks.create_task(self._server.keep())
            tasks.create_task(self._server.watch())
            tasks.create_task(self._watch())
            tasks.create_task(self._attempt_forever())

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is left. Not ready from the first moment."""
        self._is_stopping = True
        self.load.hurry()  # who sends requests is told before anything is closed
        await self._server.drain()

    async def close(self) -> None:
        """Tell the followers that they may go. The children are killed by their owner."""
        self._peers.send(Dismissed())
        await self._peers.close()

    # What the management port shows

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here: they are taken, and there is room for another connection.

        How many requests wait is no part of it: a queue that is full refuses by itself, and one that is not may be
        long. Were groups not ready for that, a wave of requests would take them out of service one after another.
        """
        return self._takes_requests and not self.why_not_ready

    @property
    def why_not_ready(self) -> str:
        """A sentence where the state alone does not tell why no requests should come; else empty."""
        if not self._takes_requests:
            return ""
        if self._policy_wait.holds(time.monotonic()):
            return "its policy has not been put yet"
        return self._server.full_because or ""

    @property
    def _takes_requests(self) -> bool:
        """Whether the group is serving, or interrupted so shortly that requests may wait."""
        if self._is_draining or not self._server.is_listening or self._unavailable is not None:
            return False
        recently = self._served_until_s is not None and time.monotonic() - self._served_until_s < READY_GRACE_S
        return self._is_serving or recently

    @property
    def state(self) -> State:
        if self._is_draining:
            return "draining"
        if self._is_serving:
            return "serving"
        if self._retry_at_s is not None:
            return "backing_off"
        if self._generation is None and self._peers.missing:
            return "waiting_for_peers"
        return "starting"

    async def group(self) -> dict[str, Any]:
        """Return what GET /group shows. A server that does not answer delays it by half a second at most.

        in_flight_tokens: what would have to be computed again if the group went away now; None while it is not known.
        """
        in_flight_tokens = await self._server.in_flight_tokens()
        retry_in_s = None if self._retry_at_s is None else max(0.0, self._retry_at_s - time.monotonic())
        return {
            "group": self._settings.group,
            "revision": self._settings.revision,
            "incarnation": self._incarnation,
            "state": self.state,
            "generation": self._generation,
            "slo_digest": self._slo.digest,
            "policy_digest": self._policy_digest,
            "awaits_policy": self._policy_wait.is_on,
            "load": {
                "done_bytes": sum(report.view.done_bytes for report in self._reports),
                "total_bytes": sum(report.view.total_bytes for report in self._reports),
            },
            "in_flight_tokens": in_flight_tokens,
            "consecutive_start_failures": self._history.consecutive_start_failures,
            "retry_in_s": retry_in_s,
            "deaths_while_serving": self._history.deaths_while_serving,
            "missing_pods": self._peers.missing,
            "refused_pods": self._peers.refused,
            "generations": list(self._history.generations),
        }

    def _load_line(self) -> Line:
        """Return what GET /load tells now."""
        return line_of(
            self._server.load,
            ready=self.is_ready,
            leaving=self._is_draining,
            incarnation=f"{self._incarnation}-{self._history.num_generations}",
            revision=self._settings.revision,
            start_s=self._cold_start_s,
        )

    async def metrics(self) -> str:
        """Return the exposition text of this process and of the server.

        While the server does not answer, its series are not there, which is no zero; glm_server_answering says so.
        """
        of_server = await self._server.metrics()
        return self._telemetry.render(self.state, self._history, server_answers=bool(of_server)) + of_server

    def take_slo(self, slo: Slo) -> str:
        """Measure by these promises from now on, in the server that runs and in those to come; return their digest."""
        digest = self._slo.keep(slo)
        self._server.send(SetSlo(slo))
        _log.info("promises %s: classes %s", digest, ", ".join(each.name for each in slo.classes) or "none")
        return digest

    def take_policy(self, policy: Policy) -> str:
        """Treat requests by this policy from now on, in this server and in those to come; return its digest."""
        digest = self._policy.keep(policy)
        self._server.send(SetPolicy(policy))
        self._policy_wait.end()
        _log.info("policy %s: %s, trust_proxy_headers=%s", digest, policy.reasoning, policy.trust_proxy_headers)
        return digest

    @property
    def _policy_digest(self) -> str | None:
        """The digest of the policy that holds; None: nobody has ever said one, and the defaults or less hold."""
        if self._policy.value is None and self._own_policy != Policy() and not self._policy_wait.is_on:
            return policy_digest(self._own_policy)
        return self._policy.digest

    def _first_words(self) -> list[msgspec.Struct]:
        """Return what a server is told as it starts, before it answers anybody."""
        promised: list[msgspec.Struct] = [] if self._slo.value is None else [SetSlo(self._slo.value)]
        policy = SetPolicy(self._policy.value or self._own_policy)
        return [policy, CompileAt(self._run_dir.compile_path), *promised]

    # The loop

    async def _attempt_forever(self) -> None:
        while True:
            await self._back_off()
            self._finish_release()
            self._failures = []
            try:
                await self._until(self._is_assembled)
                await self._start()
                await self._until(lambda: False)
            except _GenerationOver:
                await self._end()

    async def _back_off(self) -> None:
        settings = self._settings
        num_failures = self._history.consecutive_start_failures
        delay_s = backoff_s(num_failures, settings.backoff_base_s, settings.backoff_max_s)
        if delay_s == 0.0:
            return
        _log.warning("%d starts in a row failed; the next is in %.1f s", num_failures, delay_s)
        self._retry_at_s = time.monotonic() + delay_s
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._retry_at_s = None

    def _is_assembled(self) -> bool:
        return self._pod.can_start and self._server.is_listening and self._peers.can_start

    async def _start(self) -> None:
        """Start a generation everywhere, and return when it serves."""
        settings = self._settings
        began_s = time.monotonic()
        number = self._history.num_generations + 1
        generation = f"{self._incarnation}-{number}"
        store_port = settings.rendezvous_port + 2 * (number % NUM_PORT_PAIRS)
        self._history.begin(generation, time.time())
        self._generation = generation
        _log.info("generation=%s starts: %d ranks in %d pods", generation, settings.world_size, settings.num_pods)
        self._server.send(GenerationStarting(generation=generation, endpoint=self._run_dir.endpoint(generation)))
        secret = secrets.token_hex(SECRET_BYTES)
        start = StartGeneration(generation, secret, store_port=store_port, channel_port=store_port + 1)
        self._peers.start(start)
        self._pod.start(start)
        try:
            async with asyncio.timeout(settings.start_limit_s):
                await self._until(lambda: self._is_serving)
        except TimeoutError:
            self._note(start_limit_cause(self._reports, settings.ranks_per_pod, settings.start_limit_s))
            raise _GenerationOver from None
        now_s = time.monotonic()
        if self._cold_start_s is None:
            self._cold_start_s = now_s - self._born_s
        self._telemetry.serving(
            start_s=now_s - began_s,
            cold_start_s=now_s - self._born_s,
            import_s=self._pod.import_seconds,
            interrupted_s=None if self._served_until_s is None else now_s - self._served_until_s,
        )
        _log.info("generation=%s serves after %.2f s", generation, now_s - began_s)

    async def _end(self) -> None:
        """Kill the generation everywhere, and write down why it ended."""
        began_s = time.monotonic()
        generation = self._generation
        if generation is None and not self._failures:
            return  # pods have left while there was none
        if generation is None:  # a zygote or the server died before there was one: a start that failed all the same
            generation = f"{self._incarnation}-{self._history.num_generations + 1}"
            self._history.begin(generation, time.time())
        else:
            self._peers.end(generation)
            await self._pod.end()
            await self._wait_for_peers_end(generation)
        cause = primary(self._failures)
        if self._generation is not None:
            self._server.send(GenerationEnded(generation=generation, cause=str(cause)))
        self._history.end(cause, time.time(), planned=self._is_release_over)
        self._telemetry.ended(cause)
        self._generation = None
        self._reports = []
        seconds = time.monotonic() - began_s
        _log.warning("generation=%s ended: %s (all ranks dead after %.3f s)", generation, cause, seconds)

    async def _wait_for_peers_end(self, generation: str) -> None:
        deadline_s = time.monotonic() + END_LIMIT_S
        while not self._peers.is_over(generation):
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                self._peers.drop_unfinished(generation)

    async def _until(self, is_true: Callable[[], bool]) -> None:
        """Return when is_true; raise _GenerationOver when anything has failed or pods have been released."""
        while True:
            self._changed.clear()
            if self._failures or self._is_release_over:
                raise _GenerationOver
            if is_true():
                return
            await self._changed.wait()

    # What happens

    def _on_serving(self, generation: str) -> None:
        if generation == self._generation and not self._failures and not self._is_serving:
            self._is_serving = True
            self._policy_wait.begin(time.monotonic())
            self._history.serve(time.time())
            self._changed.set()

    def _on_answer(self, generation: str) -> None:
        if generation == self._generation and self._is_serving:
            self._history.answer(time.time())

    def _on_failure(self, generation: str | None, failure: Failure) -> None:
        if generation != self._generation:
            return  # news from the past
        if all(failure.cause != known.cause for known in self._failures):
            _log.warning("generation=%s %s", generation, failure.cause)
            self._failures.append(failure)
        if self._is_serving:
            self._is_serving = False
            self._history.interrupt(time.time())
            if self._history.is_steady(time.time()):
                self._served_until_s = time.monotonic()
        self._changed.set()

    def _note(self, cause: Cause) -> None:
        self._on_failure(self._generation, Failure(cause=cause, at_s=time.monotonic()))

    def _on_lost_peer(self, pod_index: int, why: str) -> None:
        if self._generation is not None:
            self._note(lost_pod(pod_index, why))

    async def _watch(self) -> None:
        """Look at every rank and every pod, several times a second."""
        while True:
            now_s = time.monotonic()
            local = self._pod.look(now_s)
            self._peers.check_silence(now_s)
            self._unavailable = self._why_unavailable(now_s)
            if self._unavailable is not None:
                self._server.send(self._unavailable)
            self._history.look(time.time())
            self._policy_wait.look(time.monotonic())
            self._peers.send(Status(state=self.state, generation=self._generation, is_ready=self._takes_requests))
            if self._generation is not None:
                self._reports = local + self._peers.reports(self._generation)
                self._judge()
            if self._peers.leaving and self._release is None and not self._is_stopping:
                self._release = asyncio.create_task(self._release_pods(self._peers.leaving))
                self._release.add_done_callback(lambda _: self._changed.set())
            await asyncio.sleep(TICK_S)

    def _why_unavailable(self, now_s: float) -> Unavailable | None:
        """Return why no generation will serve soon, or None if one may: a first failed start is tried again at once."""
        history = self._history
        if self._generation is not None or self._peers.can_start:
            self._incomplete_since_s = None
        elif self._incomplete_since_s is None:
            self._incomplete_since_s = now_s
        if self._retry_at_s is not None and history.consecutive_start_failures > 1:
            cause = history.generations[-1].cause
            reason = f"the last {history.consecutive_start_failures} starts failed: {cause}"
            return Unavailable(reason, retry_after_s=max(1, math.ceil(self._retry_at_s - now_s)))
        since_s = self._incomplete_since_s
        if since_s is not None and now_s - since_s >= self._settings.missing_limit_s:
            return Unavailable(f"pods {self._peers.unfit} of the group are missing or cannot start", MISSING_RETRY_S)
        return None

    def _judge(self) -> None:
        if self._peers.is_any_silent():
            return  # it may have the culprit: it speaks again, or peer_limit_s ends the generation
        verdict = judge(self._reports, self._settings.heartbeat_limit_s)
        if verdict is not None and not self._failures:
            pod = verdict.rank // self._settings.ranks_per_pod
            self._note(Cause(rank=verdict.rank, pod=pod, reason="hung", message=verdict.message))

    # Draining

    @property
    def _is_draining(self) -> bool:
        return self._is_stopping or self._release is not None

    @property
    def _is_release_over(self) -> bool:
        """Whether pods were let go and the group still does not take requests again."""
        return self._release is not None and self._release.done()

    async def _release_pods(self, first: list[int]) -> None:
        """Let pods go that were told to stop while this one was not: finish first, then end the generation.

        A pod may be gone by then without our leave, and back in a generation that the drained server cannot serve.
        """
        self.load.hurry()
        _log.warning("pods %s were told to stop; draining the group for them", first)
        await self._server.drain(lag_s=self._settings.readiness_lag_s)
        leaving = self._peers.leaving
        if self._generation is not None:
            for pod in sorted({*first, *leaving}):
                self._note(Cause(rank=None, pod=pod, reason="peer_lost", message=f"pod {pod} was told to stop"))
        for pod in leaving:
            self._peers.dismiss(pod)

    def _finish_release(self) -> None:
        """Take requests again after pods have left: with a new server, for the old one is drained."""
        if self._is_release_over:
            self._release = None
            self._served_until_s = None  # not ready before the next generation
            self._server.replace()
