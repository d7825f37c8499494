"""What a rank computes with: the type of its weights, and how many threads, from settings, checkpoint and machine."""

import os
from ipaddress import ip_address
from pathlib import Path

import torch

from glm_worker.kernels.cpu import library
from glm_worker.model.config import ModelConfig
from glm_worker.settings import WorkerSettings

CGROUPS = Path("/sys/fs/cgroup")


def torch_dtype(settings: WorkerSettings, config: ModelConfig) -> torch.dtype:
    """Return the type of the weights.

    auto on a CPU is bf16 only where the checkpoint has no more and the CPU multiplies bf16 itself: elsewhere it would
    cost precision and win nothing, for there each weight is made fp32 before it is used.
    """
    if settings.dtype != "auto":
        return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    if settings.device == "cuda":
        return torch.bfloat16
    is_faster = library.is_available() and library.load().has_bf16_products
    return torch.bfloat16 if is_faster and config.dtype == "bfloat16" else torch.float32


def kv_dtype(settings: WorkerSettings, weights: torch.dtype) -> torch.dtype:
    """Return the type of the KV cache: what is asked for, or that of the weights."""
    if settings.kv_cache_dtype == "auto":
        return weights
    return torch.bfloat16 if settings.kv_cache_dtype == "bfloat16" else torch.float32


def threads_of_rank(settings: WorkerSettings, cpus: int | None = None) -> int:
    """Return the CPU threads of a rank: what is asked for, or its even share of the CPUs that its pod may use.

    Where torch computes the layers, one: several divide sums at places that neighbours decide. cpus: None: as they are.
    """
    if settings.threads_per_rank:
        return settings.threads_per_rank
    if settings.device != "cpu" or not library.is_available():
        return 1
    num_pods_here = settings.num_pods if _is_loopback(settings.leader_host) else 1
    return max(1, (usable_cpus() if cpus is None else cpus) // (settings.ranks_per_pod * num_pods_here))


def usable_cpus(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many CPUs this process may use at once, at least 1: those it may run on, and its cgroups' quotas."""
    num_cpus = len(os.sched_getaffinity(0))
    return max(1, min([num_cpus, *(int(quota) for quota in _quotas(cgroups, membership))]))


def _quotas(cgroups: Path, membership: Path) -> list[float]:
    """Return the quotas in CPUs of the process's cgroups and of all above them: v2's, and those of v1's hierarchy."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        controllers, _, own = line.partition(":")[2].partition(":")
        if not controllers:
            found += [_quota_v2(folder) for folder in _levels(cgroups, own)]
        elif "cpu" in controllers.split(","):
            found += [_quota_v1(folder) for folder in _levels(cgroups / "cpu", own)]  # where all distributions link it
            found += [_quota_v1(folder) for folder in _levels(cgroups / controllers, own)]
    return [quota for quota in found if quota is not None]


def _levels(mount: Path, own: str) -> list[Path]:
    """Return the folder of a cgroup, and those above it up to the mount.

    own: its path as the kernel tells it. A container's mount may begin anywhere on that path, at the cgroup itself too:
    then the path's end is what is found below the mount.
    """
    names = [name for name in own.split("/") if name not in ("", "..")]
    ends = [names[begin:] for begin in range(len(names))]
    seen = next((end for end in ends if mount.joinpath(*end).is_dir()), [])
    return [mount.joinpath(*seen[:depth]) for depth in range(len(seen), -1, -1)]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())  # -1: none
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None


def _is_loopback(host: str) -> bool:
    """Return whether the group's pods are all on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
