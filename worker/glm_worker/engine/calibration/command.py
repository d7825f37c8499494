"""`glm-worker calibrate`: measure a group on this machine and write the calibration file."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from glm_worker.engine.calibration.calibrator import costs_path
from glm_worker.engine.calibration.result import Calibration, EngineCosts
from glm_worker.engine.calibration.served.backlog import backlog, foretell
from glm_worker.engine.calibration.served.serving import cold_starts, overhead_s, serving, token_s
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.models import resolve
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.settings import WorkerSettings

CALIBRATOR = "glm_worker.engine.calibration.calibrator:run_calibrator"
_NO_QUEUE_LIMITS = {"max_waiting_requests": 10**9, "max_waiting_tokens": 10**12}  # a backlog waits


def calibrate(
    settings: WorkerSettings,
    supervise: Callable[[WorkerSettings], int],
    environment: Callable[[WorkerSettings], Mapping[str, str]],
    num_starts: int,
) -> Calibration:
    """Return what the group of these settings does on this machine.

    supervise: runs a pod with CALIBRATOR for its server until that is done, and returns the exit code. environment: of
    a process that serves with these settings.
    Raises ConfigError for settings of a group that is not all here, EngineFailed when the group does not do its work.
    """
    if settings.num_pods != 1:
        raise ConfigError(f"num_pods {settings.num_pods}: a calibration runs one pod; put all ranks into it")
    ModelConfig.read(resolve(settings.model))  # a wrong path is said at once, not by a group that cannot start
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cal-", dir=settings.run_dir) as folder:
        # Plain HTTP: who asks is this process, and certificates are the gateway's
        own = settings.model_copy(update={"run_dir": Path(folder), "tls_folder": ""} | _NO_QUEUE_LIMITS)
        costs = _engine_costs(own, supervise)
        starts = cold_starts(own, environment(own), num_starts)
        with serving(own, environment(own)):
            overhead = overhead_s(own, costs.prefill)
            costs = _served_costs(own, costs)
    return Calibration(
        **msgspec.structs.asdict(costs),
        overhead_s=overhead,
        max_batch_tokens=settings.max_batch_tokens,
        max_num_seqs=settings.max_num_seqs,
        cold_start_s=starts,
        device=settings.device,
        model=settings.model,
        ranks=settings.world_size,
    )


def write(calibration: Calibration, path: Path) -> None:
    """Write the file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    part.replace(path)


def _served_costs(settings: WorkerSettings, alone: EngineCosts) -> EngineCosts:
    """Return the costs of steps whose tokens are served to clients meanwhile. The group serves already."""
    limits = SchedulerLimits(
        max_model_len=alone.max_model_len,
        max_batch_tokens=settings.max_batch_tokens,
        max_num_seqs=settings.max_num_seqs,
        num_blocks=alone.kv_tokens // alone.block_size,
        block_size=alone.block_size,
    )
    requests = backlog(limits)
    foretold = foretell(requests, limits, alone.prefill, alone.decode)
    extra_s, seconds = token_s(settings, requests, foretold)
    replace = msgspec.structs.replace
    return replace(
        alone,
        decode=replace(alone.decode, per_sequence_s=alone.decode.per_sequence_s + extra_s),
        measured=replace(alone.measured, served_token_s=extra_s, backlog_s=(foretold.seconds, seconds)),
    )


def _engine_costs(settings: WorkerSettings, supervise: Callable[[WorkerSettings], int]) -> EngineCosts:
    code = supervise(settings)
    path = costs_path(settings.run_dir)
    if code or not path.exists():
        raise EngineFailed(f"the group ended with exit code {code} before it was measured; its log says why")
    return msgspec.json.decode(path.read_bytes(), type=EngineCosts)
