"""Stands where the HTTP server stands in a group that is measured: same supervisor, same ranks, same links.

It serves nobody. When the experiments are done, or the first generation has ended, it asks the supervisor to stop.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from glm_worker.control import ControlLink
from glm_worker.engine.calibration.costs import costs
from glm_worker.engine.calibration.drive import Driver
from glm_worker.engine.calibration.experiments import experiments
from glm_worker.engine.calibration.points import StepPoint, gap_s, whole_turns
from glm_worker.engine.calibration.result import EngineCosts
from glm_worker.errors import GlmWorkerError
from glm_worker.messages import (
    Drain,
    Drained,
    EngineServing,
    GenerationEnded,
    GenerationStarting,
    InFlightTokensReply,
    InFlightTokensRequest,
    MetricsReply,
    MetricsRequest,
    ServerReady,
    ToServer,
    Unavailable,
)
from glm_worker.model.config import ModelConfig
from glm_worker.models import resolve
from glm_worker.settings import WorkerSettings

ROUNDS = 3  # of all experiments, after one that only warms up
_log = logging.getLogger("glm_worker.calibration")


def costs_path(run_dir: Path) -> Path:
    """Return where the costs of the engine come to lie."""
    return run_dir / "engine-costs.json"


def run_calibrator(settings: WorkerSettings, control_fd: int) -> None:
    """Run the experiments against the first generation and write the costs; nothing is written if that fails."""
    try:
        asyncio.run(_calibrate(settings, control_fd))
    except BaseException:
        _stop_supervisor()  # or it would start this process again and again
        raise


async def _calibrate(settings: WorkerSettings, control_fd: int) -> None:
    link: ControlLink[ToServer] = await ControlLink.open(control_fd, ToServer)
    link.send(ServerReady(settings.http_port))
    driver: Driver | None = None
    measuring: asyncio.Future[None] | None = None
    vocab_size = ModelConfig.read(resolve(settings.model)).vocab_size
    loop = asyncio.get_running_loop()
    while (message := await link.receive()) is not None:
        match message:
            case GenerationStarting(generation=generation, endpoint=endpoint) if driver is None:
                driver = Driver(endpoint, generation, vocab_size)
                tell = partial(loop.call_soon_threadsafe, link.send, EngineServing(generation))
                measuring = asyncio.ensure_future(asyncio.to_thread(_measure_and_stop, settings, driver, tell))
            case Unavailable(reason=reason):
                _log.error("the group cannot start: %s", reason)
                _stop_supervisor()
            case GenerationEnded(cause=cause) if driver is not None:
                _log.error("the group failed while it was measured: %s", cause)
                driver.close()
            case MetricsRequest(id=number):
                link.send(MetricsReply(number, ""))
            case InFlightTokensRequest(id=number):
                link.send(InFlightTokensReply(number, 0))
            case Drain():
                link.send(Drained(0))
    if driver is not None and measuring is not None:
        driver.close()
        await measuring


def _measure_and_stop(settings: WorkerSettings, driver: Driver, tell_serving: Callable[[], object]) -> None:
    try:
        found = _measure(settings, driver, tell_serving)
        path = costs_path(settings.run_dir)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(found))
        part.replace(path)
    except GlmWorkerError as error:
        _log.error("the calibration failed: %s", error)
    except Exception:  # noqa: BLE001 - the outermost frame of its thread; logged
        _log.exception("the calibration crashed")
    finally:
        _stop_supervisor()


def _stop_supervisor() -> None:
    """Ask the parent to drain, which takes nothing here, and to end."""
    os.kill(os.getppid(), signal.SIGTERM)


def _measure(settings: WorkerSettings, driver: Driver, tell_serving: Callable[[], object]) -> EngineCosts:
    limits = driver.ready(settings.start_limit_s).limits
    tell_serving()
    todo = experiments(limits, settings.max_batch_tokens, settings.max_num_seqs)
    found: list[tuple[str, list[StepPoint]]] = []
    for number in range(1 + ROUNDS):
        of_round = [(experiment.name, driver.run(experiment)) for experiment in todo]
        found += of_round if number else []
        _log.info("round %d of %d: %d experiments", number, ROUNDS, len(todo))
    gap = gap_s([point for _, points in found for point in points])
    points_of: dict[str, list[StepPoint]] = {}
    for name, points in found:
        points_of.setdefault(name, []).extend(whole_turns(points, gap))
    return costs(points_of, limits)
