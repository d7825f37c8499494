"""How many of a checkpoint's first layers fit into the memory that is free, one side after the other."""

from pathlib import Path

import torch

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import tensor_reads
from glm_worker.parallel.mesh import Mesh

SPARE_SHARE = 0.15  # of what is free: activations, libraries, and what others on the machine take meanwhile
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def leading_layers(config: ModelConfig, num_layers: int) -> ModelConfig:
    """Return the configuration of the first layers alone.

    What follows in the checkpoint counts as layers for predicting further tokens, which nobody reads.
    """
    left = config.num_hidden_layers - num_layers + config.num_mtp_layers
    return config.model_copy(update={"num_hidden_layers": num_layers, "num_mtp_layers": max(1, left)})


def layers_that_fit(config: ModelConfig, dtype: torch.dtype, num_tokens: int, free_bytes: int) -> int:
    """Return how many first layers fit into free_bytes together with embedding, head and kept hidden states.

    num_tokens: of all prompts and what is generated for them. Raises ConfigError when not even one fits.
    """
    room = free_bytes * (1 - SPARE_SHARE)
    taken = weights_bytes(config, 0, dtype) + 2 * num_tokens * config.vocab_size * 4
    largest = max(_layer_bytes(config, layer_id, dtype) for layer_id in range(config.num_hidden_layers))
    taken += largest  # transformers has a layer's experts twice while it puts them together
    num_layers = 0
    for layer_id in range(config.num_hidden_layers):
        taken += _layer_bytes(config, layer_id, dtype) + 2 * num_tokens * config.hidden_size * 4
        if taken > room:
            break
        num_layers += 1
    if num_layers == 0:
        raise ConfigError(
            f"{free_bytes / 2**30:.1f} GiB of memory are free, and embedding, head and one layer need"
            f" {taken / 2**30 / (1 - SPARE_SHARE):.1f} GiB; free some, or use --dtype bfloat16"
        )
    return num_layers


def weights_bytes(config: ModelConfig, num_layers: int, dtype: torch.dtype) -> int:
    """Return what the first layers, embedding, last norm and head take."""
    outside = sum(
        read.num_elements for read in tensor_reads(config, Mesh()) if not read.parameter.startswith("layers.")
    )
    return outside * dtype.itemsize + sum(_layer_bytes(config, layer_id, dtype) for layer_id in range(num_layers))


def free_bytes_of(device: torch.device) -> int:
    """Return how much memory can be had: of the device, or of this machine and this container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_mem_available()]
    for most, used in _CGROUPS:
        try:
            free.append(int(Path(most).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # none of this kind, or one without a bound
            continue
    return min(free)


def _mem_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise ConfigError("/proc/meminfo does not say how much memory is free; say how many layers with --layers")


def _layer_bytes(config: ModelConfig, layer_id: int, dtype: torch.dtype) -> int:
    alone = config.model_copy(
        update={"num_hidden_layers": 1, "first_k_dense_replace": 1 if config.is_dense(layer_id) else 0}
    )
    reads = [read for read in tensor_reads(alone, Mesh()) if read.parameter.startswith("layers.")]
    return sum(read.num_elements for read in reads) * dtype.itemsize
