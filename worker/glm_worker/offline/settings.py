"""The settings of a group that is one rank in this process."""

from collections.abc import Mapping
from pathlib import Path

from glm_worker.errors import ConfigError
from glm_worker.models.resolve import BUILTIN
from glm_worker.settings import WorkerSettings, read_settings

NAMES = (
    "model", "served_model_name", "device", "dtype", "threads_per_rank", "max_model_len", "max_batch_tokens",
    "max_num_seqs", "block_size", "kv_cache_bytes", "kv_cache_dtype", "prefix_cache", "deterministic", "cuda_kernels",
    "look_ahead", "control_tokens", "undeclared_tools", "reasoning_default", "reasoning_auto_threshold",
    "reasoning_max_tokens", "reasoning_effort_tokens",
)  # fmt: skip
"""Settings that say something here. Those of ports, pods, promises and callers do not."""

_ALONE = {"num_pods": 1, "pod_index": 0, "ranks_per_pod": 1, "tensor_parallel": 1, "expert_parallel": 0}
_NO_BOUND = 10**9
"""Whoever asks is the one who waits: nothing is refused because others wait."""


def model_uri(model: str | Path) -> str:
    """Return where a model is: a folder where there is one of this name, else a built-in one."""
    text = str(model)
    return text if "://" in text or "/" in text or Path(text).is_dir() else f"{BUILTIN}{text}"


def local_settings(run_dir: Path, said: Mapping[str, object]) -> WorkerSettings:
    """Return the settings of a rank alone. said: by name, those of NAMES. Raises ConfigError, naming the setting."""
    for name in said:
        if name not in NAMES:
            raise ConfigError(f"{name} is no setting of an engine; there are {', '.join(NAMES)}")
    return read_settings(
        **said,
        **_ALONE,
        run_dir=run_dir,
        awaits_policy=False,
        reasoning_visibility="visible",
        reasoning_visible_to="",
        max_waiting_requests=_NO_BOUND,
        max_waiting_tokens=_NO_BOUND,
    )
