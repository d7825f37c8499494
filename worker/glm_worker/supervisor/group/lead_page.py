"""What the management port of the leading pod shows of its group, and what it takes."""

import os
import time
from typing import Any

from glm_worker.messages import Policy, Slo
from glm_worker.settings import WorkerSettings, unknown_variables
from glm_worker.supervisor.evidence.history import State
from glm_worker.supervisor.group.crew import Crew
from glm_worker.supervisor.group.release import Release
from glm_worker.supervisor.group.standing import Standing
from glm_worker.supervisor.management.load import Line, LoadBoard, line_of
from glm_worker.supervisor.management.telemetry import Telemetry
from glm_worker.supervisor.told.told import Told


class LeadPage:
    """Only looks: it changes nothing but what is put to it."""

    def __init__(
        self,
        settings: WorkerSettings,
        incarnation: str,
        crew: Crew,
        standing: Standing,
        release: Release,
        told: Told,
        telemetry: Telemetry,
    ) -> None:
        self.load = LoadBoard(self._load_line, crew.server.watch_load)
        self._settings = settings
        self._unknown_settings = unknown_variables(os.environ)
        self._incarnation = incarnation
        self._crew = crew
        self._standing = standing
        self._release = release
        self._told = told
        self._telemetry = telemetry

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here: they are taken, and there is room for another connection.

        How many requests wait is no part of it: a queue that is full refuses by itself, and one that is not may be
        long. Were groups not ready for that, a wave of requests would take them out of service one after another.
        """
        return self.takes_requests and not self.why_not_ready

    @property
    def why_not_ready(self) -> str:
        """A sentence where the state alone does not tell why no requests should come; else empty."""
        if self._release.is_draining:
            return ""
        if not self.takes_requests:
            return self._why_no_server()
        if self._told.wait.holds(time.monotonic()):
            return "its policy has not been put yet"
        return self._crew.server.full_because or ""

    @property
    def takes_requests(self) -> bool:
        """Whether the group is serving, or interrupted so shortly that requests may wait."""
        if self._release.is_draining or not self._crew.server.is_listening or self._standing.unavailable is not None:
            return False
        return self._standing.was_serving_at(time.monotonic())

    @property
    def state(self) -> State:
        standing = self._standing
        if self._release.is_draining:
            return "draining"
        if standing.is_serving:
            return "serving"
        if self._retry_at_s is not None:
            return "backing_off"
        if standing.generation is None and self._crew.peers.missing:
            return "waiting_for_peers"
        return "starting"

    async def group(self) -> dict[str, Any]:
        """Return what GET /group shows. A server that does not answer delays it by half a second at most.

        in_flight_tokens: what would have to be computed again if the group went away now; None while it is not known.
        """
        standing, crew = self._standing, self._crew
        in_flight_tokens = await crew.server.in_flight_tokens()
        retry_at_s, deaths = self._retry_at_s, crew.server.deaths
        return {
            "group": self._settings.group,
            "revision": self._settings.revision,
            "incarnation": self._incarnation,
            "state": self.state,
            "generation": standing.generation,
            "slo_digest": self._told.slo_digest,
            "policy_digest": self._told.policy_digest,
            "awaits_policy": self._told.wait.is_on,
            "unknown_settings": self._unknown_settings,
            "load": {
                "done_bytes": sum(report.view.done_bytes for report in standing.reports),
                "total_bytes": sum(report.view.total_bytes for report in standing.reports),
            },
            "in_flight_tokens": in_flight_tokens,
            "consecutive_start_failures": standing.history.consecutive_start_failures,
            "retry_in_s": None if retry_at_s is None else max(0.0, retry_at_s - time.monotonic()),
            "deaths_while_serving": standing.history.deaths_while_serving,
            "server_deaths": deaths.number,
            "last_server_death": None if deaths.last is None else deaths.last.message,
            "missing_pods": crew.peers.missing,
            "refused_pods": crew.peers.refused,
            "generations": list(standing.history.generations),
        }

    async def metrics(self) -> str:
        """Return the exposition text of this process and of the server.

        While the server does not answer, its series are not there, which is no zero; glm_server_answering says so.
        """
        of_server = await self._crew.server.metrics()
        own = self._telemetry.render(self.state, self._standing.history, server_answers=bool(of_server))
        return own + of_server

    def take_slo(self, slo: Slo) -> str:
        """Measure by these promises from now on; return their digest."""
        return self._told.take_slo(slo)

    def take_policy(self, policy: Policy) -> str:
        """Treat requests by this policy from now on; return its digest."""
        return self._told.take_policy(policy)

    @property
    def _retry_at_s(self) -> float | None:
        """When something is tried again: a generation, or a server for the generation that waits for one."""
        if self._standing.retry_at_s is not None or self._standing.generation is None:
            return self._standing.retry_at_s
        return self._crew.server.retry_at_s

    def _why_no_server(self) -> str:
        """Return a sentence where a generation has loaded and only the server is missing; else nothing."""
        server = self._crew.server
        if server.is_listening or server.deaths.last is None or not self._standing.has_loaded:
            return ""
        said, in_a_row = server.deaths.last.message, server.deaths.in_a_row
        if in_a_row > 1:
            said = f"{in_a_row} servers in a row never worked; the last: {said}"
        return f"{said}; the ranks are loaded and wait for the next server"

    def _load_line(self) -> Line:
        """Return what GET /load tells now."""
        standing = self._standing
        return line_of(
            self._crew.server.load,
            ready=self.is_ready,
            leaving=self._release.is_draining,
            incarnation=f"{self._incarnation}-{standing.history.num_generations}",
            revision=self._settings.revision,
            start_s=standing.cold_start_s,
        )
