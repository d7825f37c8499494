"""The supervisor of a pod that follows: dials the leader and runs this pod's ranks as told.

It outlives its leader. When the link ends, or the leader says nothing for peer_limit_s, it kills its ranks (a leader
that cannot hear us has given the generation up, or is about to) and dials again, resolving the name anew.
"""

import asyncio
import logging
import time
from typing import Any

import msgspec

from glm_worker.control import ControlLink, ProtocolError
from glm_worker.errors import RequestRefused
from glm_worker.margins import DISMISSED_S
from glm_worker.messages import Policy, Slo
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.evidence.causes import Cause, Failure
from glm_worker.supervisor.evidence.history import State
from glm_worker.supervisor.evidence.watchdog import TICK_S, Stopwatch
from glm_worker.supervisor.group.pod import Pod
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
    Status,
    ToFollower,
    Welcome,
    hello_of,
)
from glm_worker.supervisor.management.telemetry import FollowerTelemetry
from glm_worker.supervisor.rundir import RunDir

_log = logging.getLogger("glm_worker.supervisor")

REDIAL_S = 0.5


class FollowerPod:
    """One life of a pod whose leader comes and goes."""

    def __init__(
        self, settings: WorkerSettings, children: Children, run_dir: RunDir, incarnation: str, *, rank_target: str
    ) -> None:
        self._settings = settings
        self._incarnation = incarnation
        self._telemetry = FollowerTelemetry(settings.identity, settings.pod_index)
        self._pod = Pod(settings, children, run_dir, rank_target, on_change=self._report, on_failure=self._on_failure)
        self._link: ControlLink[ToFollower] | None = None
        self._num_messages = 0
        self._silence = Stopwatch()
        self._leader_state: State | None = None
        self._leader_is_ready = False
        self._refused: str | None = None
        self._is_leaving = False
        self._may_leave = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pod.keep_zygote())
            tasks.create_task(self._watch())
            tasks.create_task(self._follow_forever())

    async def drain(self) -> None:
        """Keep the ranks until the leader is done with its requests; return then, or when waiting makes no sense."""
        self._is_leaving = True
        settings = self._settings
        if self._link is None:
            return
        self._may_leave.clear()  # of earlier links; the end of this one sets it again, seen by us already or not
        self._link.send(Leaving())
        limit_s = settings.drain_accept_s + settings.readiness_lag_s + settings.drain_deadline_s + DISMISSED_S
        try:
            async with asyncio.timeout(limit_s):
                await self._may_leave.wait()
        except TimeoutError:
            _log.error("the leader did not dismiss this pod within %.0f s; leaving", limit_s)

    async def close(self) -> None:
        """Hang up; the leader sees it at once."""
        if self._link is not None:
            self._link.close()

    @property
    def page(self) -> "FollowerPod":
        """What its management port shows: itself."""
        return self

    @property
    def is_ready(self) -> bool:
        """Whether this pod takes part in a group that serves (or is interrupted shortly)."""
        return self._leader_is_ready and not self._is_leaving and self._link is not None

    @property
    def why_not_ready(self) -> str:
        return ""

    @property
    def state(self) -> State:
        if self._is_leaving:
            return "draining"
        return self._leader_state or "waiting_for_peers"

    async def group(self) -> dict[str, Any]:
        """Return what GET /group shows: the leader's has the history, this one says how the pod sees its leader."""
        views = [report.view for report in self._pod.look(time.monotonic())]
        return {
            "group": self._settings.group,
            "revision": self._settings.revision,
            "incarnation": self._incarnation,
            "state": self.state,
            "generation": self._pod.generation,
            "load": {
                "done_bytes": sum(view.done_bytes for view in views),
                "total_bytes": sum(view.total_bytes for view in views),
            },
            "leader": self._settings.leader_host,
            "connected": self._link is not None,
            "refused": self._refused,
        }

    @property
    def load(self) -> None:
        """Nothing: a group's load is told by its leading pod."""
        return None

    async def metrics(self) -> str:
        """Return the exposition text of this process."""
        return self._telemetry.render(is_connected=self._link is not None, is_refused=self._refused is not None)

    def take_slo(self, slo: Slo) -> str:  # noqa: ARG002 - the shape of Role
        """Refuse: only the server of the leading pod measures."""
        raise self._refusal("promises are put")

    def take_policy(self, policy: Policy) -> str:  # noqa: ARG002 - the shape of Role
        """Refuse: only the server of the leading pod answers requests."""
        raise self._refusal("a policy is put")

    def _refusal(self, what: str) -> RequestRefused:
        leader, own = self._settings.leader_host, self._settings.pod_index
        return RequestRefused(f"{what} to the leading pod, {leader}; this is pod {own}", status=404)

    async def _follow_forever(self) -> None:
        settings = self._settings
        was_reachable = True
        while True:
            # Read at each try: the model may have come meanwhile. Before the leader awaits it: storage may be slow.
            hello = await asyncio.to_thread(hello_of, settings, self._incarnation)
            try:
                async with asyncio.timeout(settings.peer_limit_s):
                    streams = await asyncio.open_connection(settings.leader_host, settings.coordinator_port)
            except (OSError, TimeoutError) as error:
                if was_reachable:  # once, not at each try
                    where = f"{settings.leader_host}:{settings.coordinator_port}"
                    _log.info("the leader at %s is not there: %s; dialling until it is", where, error or "timeout")
                was_reachable = False
                await asyncio.sleep(REDIAL_S)
                continue
            was_reachable = True
            await self._follow(ControlLink(*streams, ToFollower), hello)
            await asyncio.sleep(REDIAL_S)

    async def _follow(self, link: ControlLink[ToFollower], hello: Hello) -> None:
        """Serve one connection from its greeting to its end."""
        link.send(hello)
        self._silence = Stopwatch()
        self._link = link
        try:
            while (message := await link.receive()) is not None:
                self._num_messages += 1
                await self._obey(message)
        except ProtocolError as error:
            _log.error("the leader speaks another protocol: %s", error)
        finally:
            link.close()
            self._link = None
            self._leader_state, self._leader_is_ready = None, False
            if self._pod.generation is not None:
                _log.warning("generation=%s the leader is gone; ending it here", self._pod.generation)
            await self._pod.end()
            self._may_leave.set()  # nobody is left to be waited for

    async def _obey(self, message: ToFollower) -> None:
        match message:
            case Welcome(incarnation=incarnation):
                _log.info("joined the leader (incarnation %s)", incarnation)
                self._refused = None
                self._report()
                if self._is_leaving:
                    self._send(Leaving())
            case Refused(reason=reason):
                if reason != self._refused:
                    _log.error("the leader refuses this pod: %s", reason)
                self._refused = reason
            case StartGeneration():
                self._start(message)
            case EndGeneration(generation=generation):
                failures = await self._pod.end() if generation == self._pod.generation else []
                self._send(PodOver(generation=generation, failures=[_aged(failure) for failure in failures]))
                self._report()
            case Status(state=state, is_ready=is_ready):
                self._leader_state, self._leader_is_ready = state, is_ready
            case Dismissed():
                self._may_leave.set()

    def _start(self, start: StartGeneration) -> None:
        if self._pod.can_start:
            _log.info("generation=%s starts", start.generation)
            self._pod.start(start)
            return
        # The zygote died between our last report and this message.
        cause = Cause(rank=None, pod=self._settings.pod_index, reason="failed", message="this pod's zygote is gone")
        self._send(PodFailed(generation=start.generation, failure=AgedCause(cause=cause, age_s=0.0)))

    async def _watch(self) -> None:
        """Report several times a second, and hang up on a leader that says nothing."""
        while True:
            self._report()
            link = self._link
            if link is not None:
                silent_s = self._silence.look(self._num_messages, time.monotonic())
                if silent_s >= self._settings.peer_limit_s:
                    _log.warning("the leader has said nothing for %.1f s; hanging up", silent_s)
                    self._silence = Stopwatch()  # say it once; the reader sees the end of the link
                    link.close()
            await asyncio.sleep(TICK_S)

    def _report(self) -> None:
        ranks = self._pod.look(time.monotonic())
        self._send(Report(generation=self._pod.generation, can_start=self._pod.can_start, ranks=ranks))

    def _on_failure(self, generation: str | None, failure: Failure) -> None:
        _log.warning("generation=%s %s", generation, failure.cause)
        self._send(PodFailed(generation=generation, failure=_aged(failure)))

    def _send(self, message: msgspec.Struct) -> None:
        if self._link is not None:
            self._link.send(message)


def _aged(failure: Failure) -> AgedCause:
    return AgedCause(cause=failure.cause, age_s=time.monotonic() - failure.at_s)
