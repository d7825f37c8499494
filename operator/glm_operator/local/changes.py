"""Which pods to stop, to start and to leave alone, to get from what runs to what is wanted. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from glm_operator.local.pods import LocalPod
from glm_operator.local.state import PodRecord


@dataclass(frozen=True)
class Changes:
    stop: list[PodRecord]
    start: list[LocalPod]
    keep: list[PodRecord]


def changes(wanted: Sequence[LocalPod], records: Sequence[PodRecord], alive: Collection[str]) -> Changes:
    """Return the changes. alive: names of the recorded pods whose process lives.

    A group is one copy of the model: if any of its pods would change, all of it restarts. A pod that merely died is
    started again by itself, as a StatefulSet would; what is left of it is stopped first.
    """
    same = {group for group in {pod.group for pod in wanted} if _prints(wanted, group) == _prints(records, group)}
    keep = [record for record in records if record.group in same and record.name in alive]
    kept = {record.name for record in keep}
    return Changes(
        stop=[record for record in records if record.name not in kept],
        start=[pod for pod in wanted if pod.name not in kept],
        keep=keep,
    )


def _prints(pods: Sequence[LocalPod] | Sequence[PodRecord], group: str) -> dict[str, str]:
    return {pod.name: pod.fingerprint for pod in pods if pod.group == group}
