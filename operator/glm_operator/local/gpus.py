"""Which CUDA devices each pod gets. Pure.

A device is known by the text that CUDA_VISIBLE_DEVICES has for it: a number, or a UUID (GPU-..., MIG-...).
"""

import re
from collections.abc import Collection, Mapping, Sequence

from glm_operator.local.errors import LocalError
from glm_operator.local.pods import LocalPod

_DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")


def listed_devices(cuda_visible_devices: str) -> list[str]:
    """Return the devices that the variable names, each once, as it spells them.

    CUDA sees none from the first wrong one on.
    """
    devices: list[str] = []
    for text in (part.strip() for part in cuda_visible_devices.split(",")):
        if not _DEVICE.fullmatch(text):
            break
        devices.append(text)
    return [*dict.fromkeys(devices)]


def assign_gpus(
    pods: Sequence[LocalPod], visible: Sequence[str], taken: Collection[str], held: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the devices of every pod that asks for some, in order, no device twice.

    visible: what processes started from here may use. taken: devices of other deployments. held: devices that pods of
    this deployment have had; they keep them while they ask for as many, so that an unchanged pod stays unchanged.
    """
    kept = [pod for pod in pods if pod.num_gpus and len(held.get(pod.name, ())) == pod.num_gpus]
    assigned = {pod.name: [*held[pod.name]] for pod in kept}
    used = {*taken, *(device for devices in assigned.values() for device in devices)}
    free = [device for device in visible if device not in used]
    num_missing = sum(pod.num_gpus for pod in pods if pod.name not in assigned)
    if num_missing > len(free):
        num_taken = len({*taken} & {*visible})
        others = f", {num_taken} of them used by other deployments" if num_taken else ""
        raise LocalError(
            f"the spec needs {sum(pod.num_gpus for pod in pods)} GPUs, and there are {len(visible)} here (by "
            f"CUDA_VISIBLE_DEVICES, or else nvidia-smi){others}; "
            "lower replicas or parallelism.expert, or use device cpu"
        )
    for pod in pods:
        if pod.num_gpus and pod.name not in assigned:
            assigned[pod.name], free = free[: pod.num_gpus], free[pod.num_gpus :]
    return assigned
