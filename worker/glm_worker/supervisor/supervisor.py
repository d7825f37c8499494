"""The life of a pod's main process: start the role, answer the management port, drain on the first stop signal.

Exit codes: 0 after a drain; 78 for settings that can never work; 1 when stopped a second time before the drain was
over, or for a bug. Whatever way this process ends, nothing it started outlives it.
"""

import asyncio
import contextlib
import logging
import os
import secrets

from glm_worker.errors import ConfigError
from glm_worker.margins import KILLED_S
from glm_worker.server.policy import policy_of
from glm_worker.settings import WorkerSettings, unknown_variables
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.process import STOP_SIGNALS, name_process
from glm_worker.supervisor.evidence.causes import EXIT_CONFIG
from glm_worker.supervisor.group.follower_pod import FollowerPod
from glm_worker.supervisor.group.lead_pod import LeadPod
from glm_worker.supervisor.logs import configure_logging
from glm_worker.supervisor.management.health import ManagementServer
from glm_worker.supervisor.rundir import RunDir

_log = logging.getLogger("glm_worker.supervisor")

RANK_TARGET = "glm_worker.engine.rank:run_rank"
SERVER_TARGET = "glm_worker.server.main:run_server"


def supervise(settings: WorkerSettings, *, rank_target: str = RANK_TARGET, server_target: str = SERVER_TARGET) -> int:
    """Run the pod until it is told to stop; return the exit code.

    The targets are module:function names of what a rank and the server run, imported in their processes only.
    """
    configure_logging(settings, "supervisor")
    name_process("glm-supervisor")
    for name in unknown_variables(os.environ):
        _log.warning("%s is no setting of this worker, and changes nothing", name)
    try:
        return asyncio.run(_supervise(settings, rank_target, server_target))
    except ConfigError as error:
        _log.error("%s", error)
        return EXIT_CONFIG


async def _supervise(settings: WorkerSettings, rank_target: str, server_target: str) -> int:
    policy = policy_of(settings)
    stops = _StopSignals()
    incarnation = secrets.token_hex(4)
    children = Children()
    run_dir = RunDir.create(settings.run_dir, incarnation)
    role: LeadPod | FollowerPod
    if settings.is_leader:
        role = LeadPod(
            settings,
            children,
            run_dir,
            incarnation,
            rank_target=rank_target,
            server_target=server_target,
            policy=policy,
        )
    else:
        role = FollowerPod(settings, children, run_dir, incarnation, rank_target=rank_target)
    try:
        management = ManagementServer(settings, role.page)
        serving = asyncio.create_task(management.serve())
        running = asyncio.create_task(role.run())
        _log.info("incarnation %s, pod %d of %d", incarnation, settings.pod_index, settings.num_pods)
        try:
            return await _run_until_stopped(role, running, stops)
        finally:
            if stops.second.is_set():
                children.kill()
            await role.close()
            running.cancel()
            await asyncio.wait({running})
            management.stop()
            await serving
    finally:
        await children.kill_all(KILLED_S)
        children.close()
        run_dir.close()


async def _run_until_stopped(role: LeadPod | FollowerPod, running: asyncio.Task[None], stops: "_StopSignals") -> int:
    first, second = asyncio.create_task(stops.first.wait()), asyncio.create_task(stops.second.wait())
    draining: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({running, first}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running  # raises what stopped it
        _log.info("told to stop; draining")
        draining = asyncio.create_task(role.drain())
        done, _ = await asyncio.wait({running, draining, second}, return_when=asyncio.FIRST_COMPLETED)
        if second in done:
            _log.warning("stopped a second time; not waiting for requests in flight")
            return 1
        if running in done:
            await running
        await draining
        return 0
    finally:
        for task in (first, second, draining):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


class _StopSignals:
    """SIGTERM or SIGINT: the first asks for a drain, the second for an end."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
