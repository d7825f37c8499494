"""The process of the controller: started by `glm local up`, ended before anything else changes what runs."""

import asyncio
import logging
import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from typing import Annotated

import msgspec
import typer

from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import Sources
from glm_operator.local import processes
from glm_operator.local.control import Controller
from glm_operator.local.errors import LocalError
from glm_operator.local.management import Management
from glm_operator.local.processes import Process
from glm_operator.local.state import ControllerRecord, DeploymentState, StateFolder

LATENCY_PERIOD_S = 2.0
STOP_LIMIT_S = 10.0
POLL_S = 0.05
RUN_DIR = "controller"


def start(folder: StateFolder, state: DeploymentState, prometheus: str | None) -> DeploymentState:
    """Start the controller of a deployment. Recorded before it starts, so that it is never unknown."""
    record = ControllerRecord(token=secrets.token_hex(16))
    state = msgspec.structs.replace(state, controller=record, crashes=[])  # who calls `up` may have fixed the cause
    folder.write(state)
    command = [sys.executable, "-P", "-m", "glm_operator.local.controller", state.name]
    command += ["--prometheus", prometheus] if prometheus else []
    run_dir, log = folder.run_dir(state.name, RUN_DIR), folder.log_file(state.name, RUN_DIR)
    process = processes.start(command, {}, record.token, run_dir, log)
    record = msgspec.structs.replace(record, pid=process.pid, start_ticks=process.start_ticks)
    state = msgspec.structs.replace(state, controller=record)
    folder.write(state)
    return state


def has_died(state: DeploymentState) -> bool:
    """Whether a deployment should have a controller, and its process is gone."""
    record = state.controller
    return record is not None and not processes.is_alive(Process(record.pid, record.start_ticks))


def stop(folder: StateFolder, state: DeploymentState) -> None:
    """End the controller of a deployment, if it has one, and forget what it said. LocalError if it survives SIGKILL."""
    if state.controller is None:
        return
    deadline = time.monotonic() + STOP_LIMIT_S
    for process in processes.members(state.controller.token):
        processes.terminate(process)
    while found := processes.members(state.controller.token):
        if time.monotonic() > deadline + STOP_LIMIT_S:
            raise LocalError(f"the controller of {state.name} (process {found[0].pid}) does not die")
        if time.monotonic() > deadline:
            for process in found:
                processes.kill(process)
        time.sleep(POLL_S)
    shutil.rmtree(folder.run_dir(state.name, RUN_DIR), ignore_errors=True)
    folder.scaling_file(state.name).unlink(missing_ok=True)


async def _control(name: str, prometheus: str | None) -> None:
    client = None if prometheus is None else Prometheus(Access(url=prometheus))
    sources = Sources(Scraper(latency_step_s=LATENCY_PERIOD_S), client, latency_period_s=LATENCY_PERIOD_S)
    try:
        with Management() as management:
            folder, program = StateFolder.of_user(), processes.worker_program()
            await Controller(folder, name, os.environ[processes.TOKEN_VARIABLE], program, sources, management).run()
    finally:
        await sources.close()


def control(
    name: Annotated[str, typer.Argument(help="Deployment that runs on this machine.")],
    prometheus: Annotated[str | None, typer.Option(help="URL of a Prometheus that scrapes the workers.")] = None,
) -> None:
    """Keep the number of groups of a deployment. `glm local up` starts it."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    with suppress(KeyboardInterrupt):
        asyncio.run(_control(name, prometheus))


if __name__ == "__main__":
    typer.run(control)
