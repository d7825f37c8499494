"""The pods of a deployment's gateway, as the API server has them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from glm_operator import names
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest, name_of


@dataclass(frozen=True)
class GatewayPod:
    """One pod. digest: of the file that was last said to be brought to it; "" for none.

    has_certificate: it mounts what it shows to workers, and so may ask those that speak TLS. has_ended: for good, as
    one that was evicted; it stays to be looked at.
    """

    name: str
    uid: str
    ip: str | None
    is_ready: bool
    is_leaving: bool
    digest: str = ""
    has_certificate: bool = False
    has_ended: bool = False
    trouble: Trouble | None = None

    @property
    def may_answer(self) -> bool:
        """Whether its management port may be asked: also of one that goes, as long as it waits for its requests."""
        return self.ip is not None


def is_gateway(pod: Manifest) -> bool:
    """Tell whether a pod with a deployment's label is of its gateway."""
    labels = pod["metadata"].get("labels") or {}
    return bool(labels.get(names.COMPONENT_LABEL) == names.GATEWAY_ROLE)


def gateway_pods(pods: Iterable[Manifest], troubles: Iterable[Trouble | None]) -> tuple[GatewayPod, ...]:
    """Return the pods in the order of their names. troubles: what keeps each down, in the order of pods."""
    found = [_pod(pod, trouble) for pod, trouble in zip(pods, troubles, strict=True)]
    return tuple(sorted(found, key=lambda pod: pod.name))


def _pod(pod: Manifest, trouble: Trouble | None) -> GatewayPod:
    metadata, status = pod["metadata"], pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    return GatewayPod(
        name=name_of(pod),
        uid=metadata.get("uid", ""),
        ip=status.get("podIP"),
        is_ready=conditions.get("Ready", {}).get("status") == "True" and "deletionTimestamp" not in metadata,
        is_leaving="deletionTimestamp" in metadata,
        digest=(metadata.get("annotations") or {}).get(names.CONFIG_ANNOTATION, ""),
        has_ended=status.get("phase") in ("Failed", "Succeeded"),
        has_certificate=any(
            volume.get("name") == names.WORKERS_VOLUME for volume in pod.get("spec", {}).get("volumes") or []
        ),
        trouble=trouble,
    )
