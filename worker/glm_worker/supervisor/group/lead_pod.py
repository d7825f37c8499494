"""The leading supervisor (pod 0), put together: attempts to serve, what is shown, what is told, and how it ends."""

import asyncio
import time

import msgspec

from glm_worker.messages import CompileAt, Policy
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.server_client import ServerEvents
from glm_worker.supervisor.children.server_keeper import ServerKeeper
from glm_worker.supervisor.evidence.causes import Cause, Failure
from glm_worker.supervisor.group.attempts import Attempts
from glm_worker.supervisor.group.crew import Crew
from glm_worker.supervisor.group.lead_page import LeadPage
from glm_worker.supervisor.group.peers import Peers
from glm_worker.supervisor.group.pod import Pod
from glm_worker.supervisor.group.protocol import Dismissed
from glm_worker.supervisor.group.release import Release
from glm_worker.supervisor.group.standing import Standing
from glm_worker.supervisor.group.watch import Watch
from glm_worker.supervisor.management.telemetry import Telemetry
from glm_worker.supervisor.rundir import RunDir
from glm_worker.supervisor.told.told import Told


class LeadPod:
    """One life of the group as seen by pod 0. page: what its management port shows."""

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
        standing, telemetry = Standing(time.monotonic(), time.time()), Telemetry(settings.identity)
        self._crew = crew = Crew(
            Pod(settings, children, run_dir, rank_target, on_change=self._wake, on_failure=self._fail),
            Peers(settings, incarnation, on_change=self._wake, on_failure=self._fail, on_lost=self._lose_peer),
            ServerKeeper(
                settings,
                children,
                server_target,
                ServerEvents(on_serving=self._serve, on_answer=self._answer, on_change=self._wake),
                on_end=self._lose_server,
                first_words=self._first_words,
            ),
        )
        whose = f"{settings.namespace}/{settings.group}"
        self._told = Told(
            lambda kind: run_dir.lasting(kind, whose),
            policy or Policy(),
            awaits_policy=settings.awaits_policy,
            tell=crew.server.send,
        )
        self._release = Release(
            crew.server,
            crew.peers,
            settings.readiness_lag_s,
            on_change=self._wake,
            on_draining=lambda: self.page.load.hurry(),
            on_leave=self._leave,
        )
        self._attempts = Attempts(
            settings,
            run_dir,
            incarnation,
            crew,
            self._release,
            standing,
            telemetry,
            on_served=lambda: self._told.wait.begin(time.monotonic()),
        )
        self.page = LeadPage(settings, incarnation, crew, standing, self._release, self._told, telemetry)
        self._watch = Watch(settings, crew, standing, self._attempts, self._release, self.page, self._told.wait)
        self._compile_path = run_dir.compile_path

    async def run(self) -> None:
        """Serve until cancelled."""
        crew = self._crew
        await crew.peers.listen()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(crew.pod.keep_zygote())
            tasks.create_task(crew.server.keep())
            tasks.create_task(crew.server.stand_by())
            tasks.create_task(crew.server.watch())
            tasks.create_task(self._watch.run())
            tasks.create_task(self._attempts.run())

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is left. Not ready from the first moment."""
        await self._release.drain()

    async def close(self) -> None:
        """Tell the followers that they may go. The children are killed by their owner."""
        self._crew.peers.send(Dismissed())
        await self._crew.peers.close()

    def _first_words(self) -> list[msgspec.Struct]:
        """Return what a server is told as it starts, before it answers anybody."""
        return [*self._told.first_words(), CompileAt(self._compile_path), *self._attempts.first_words()]

    # The crew is made before who listens to it

    def _wake(self) -> None:
        self._attempts.changed.set()

    def _fail(self, generation: str | None, failure: Failure) -> None:
        self._attempts.fail(generation, failure)

    def _lose_peer(self, pod_index: int, why: str) -> None:
        self._attempts.lose_peer(pod_index, why)

    def _lose_server(self, cause: Cause) -> None:
        self._attempts.lose_server(cause)

    def _serve(self, generation: str) -> None:
        self._attempts.serve(generation)

    def _answer(self, generation: str) -> None:
        self._attempts.answer(generation)

    def _leave(self, cause: Cause) -> None:
        self._attempts.let_go(cause)
