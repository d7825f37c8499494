"""Which CUDA devices each pod gets. Pure."""

from collections.abc import Collection, Sequence

from glm_operator.local.errors import LocalError
from glm_operator.local.pods import LocalPod


def assign_gpus(pods: Sequence[LocalPod], num_devices: int, taken: Collection[int]) -> dict[str, list[int]]:
    """Return the device indices of every pod that asks for some, in order. taken: devices of other deployments."""
    free = [device for device in range(num_devices) if device not in taken]
    wanted = sum(pod.num_gpus for pod in pods)
    if wanted > len(free):
        others = f", {len(taken)} of them used by other deployments" if taken else ""
        raise LocalError(
            f"the spec needs {wanted} GPUs, this machine has {num_devices}{others}; "
            "lower replicas or parallelism.expert, or use device cpu"
        )
    assigned: dict[str, list[int]] = {}
    for pod in pods:
        if pod.num_gpus:
            assigned[pod.name], free = free[: pod.num_gpus], free[pod.num_gpus :]
    return assigned
