"""The device of a rank. Explicit: a CUDA device that is missing is an error, never a silent fall-back."""

import torch

from glm_worker.errors import ConfigError
from glm_worker.settings import Device


def rank_device(kind: Device, local_rank: int) -> torch.device:
    """Return the device of the rank with this number inside its pod: one GPU a rank, cuda:{local_rank}.

    Initialises CUDA, so it must run in the rank itself, never in the process that forks ranks.
    """
    if kind == "cpu":
        return torch.device("cpu")
    num_devices = torch.cuda.device_count()
    if local_rank >= num_devices:
        raise ConfigError(
            f"device cuda: local rank {local_rank} needs GPU {local_rank}, this pod sees {num_devices}; "
            "give the pod one GPU a rank, or set device to cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
