"""Looks at every rank, pod and promise of waiting several times a second, and says what it sees."""

import asyncio
import math
import time

from glm_worker.messages import Unavailable
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.watchdog import TICK_S, judge
from glm_worker.supervisor.group.attempts import Attempts
from glm_worker.supervisor.group.crew import Crew
from glm_worker.supervisor.group.lead_page import LeadPage
from glm_worker.supervisor.group.protocol import Status
from glm_worker.supervisor.group.release import Release
from glm_worker.supervisor.group.standing import Standing
from glm_worker.supervisor.told.policy_wait import PolicyWait

MISSING_RETRY_S = 10  # about what a pod needs to come back


class Watch:
    """The leader's. Followers hear of it what their own pages show."""

    def __init__(
        self,
        settings: WorkerSettings,
        crew: Crew,
        standing: Standing,
        attempts: Attempts,
        release: Release,
        page: LeadPage,
        policy_wait: PolicyWait,
    ) -> None:
        self._settings = settings
        self._crew = crew
        self._standing = standing
        self._attempts = attempts
        self._release = release
        self._page = page
        self._policy_wait = policy_wait
        self._incomplete_since_s: float | None = None  # no generation, and not every other pod could start one

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self._look(time.monotonic())
            await asyncio.sleep(TICK_S)

    def _look(self, now_s: float) -> None:
        crew, standing = self._crew, self._standing
        local = crew.pod.look(now_s)
        crew.peers.check_silence(now_s)
        standing.unavailable = self._why_unavailable(now_s)
        if standing.unavailable is not None:
            crew.server.send(standing.unavailable)
        standing.history.look(time.time())
        self._policy_wait.look(now_s)
        page = self._page
        crew.peers.send(Status(state=page.state, generation=standing.generation, is_ready=page.takes_requests))
        if standing.generation is not None:
            standing.reports = local + crew.peers.reports(standing.generation)
            self._judge()
        self._release.look()

    def _why_unavailable(self, now_s: float) -> Unavailable | None:
        """Return why no generation will serve soon, or None if one may: a first failed start is tried again at once."""
        standing, peers = self._standing, self._crew.peers
        history, retry_at_s = standing.history, standing.retry_at_s
        if standing.generation is not None or peers.can_start:
            self._incomplete_since_s = None
        elif self._incomplete_since_s is None:
            self._incomplete_since_s = now_s
        if retry_at_s is not None and history.consecutive_start_failures > 1:
            cause = history.generations[-1].cause
            reason = f"the last {history.consecutive_start_failures} starts failed: {cause}"
            return Unavailable(reason, retry_after_s=max(1, math.ceil(retry_at_s - now_s)))
        since_s = self._incomplete_since_s
        if since_s is not None and now_s - since_s >= self._settings.missing_limit_s:
            return Unavailable(f"pods {peers.unfit} of the group are missing or cannot start", MISSING_RETRY_S)
        return None

    def _judge(self) -> None:
        if self._crew.peers.is_any_silent():
            return  # it may have the culprit: it speaks again, or peer_limit_s ends the generation
        verdict = judge(self._standing.reports, self._settings.heartbeat_limit_s)
        if verdict is not None and not self._attempts.failures:
            pod = verdict.rank // self._settings.ranks_per_pod
            self._attempts.note(Cause(rank=verdict.rank, pod=pod, reason="hung", message=verdict.message))
