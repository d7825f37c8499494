"""What a pass needs of others: the API server and the workers, as protocols."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.status.conditions import Transition


class Cluster(Protocol):
    """What a pass needs of the API server (glm_operator.cluster.kube.Kube)."""

    async def deployment(self, namespace: str, name: str) -> Manifest | None: ...
    async def observe(self, body: Manifest, now: datetime) -> Observed: ...
    async def apply(
        self, manifest: Manifest, owner: Manifest, observed: Observed, *, dry_run: bool = False
    ) -> bool: ...
    async def try_pod(self, pod: Manifest) -> None: ...
    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None: ...
    async def patch_status(self, body: Manifest, status: Mapping[str, Any]) -> bool: ...
    async def post_events(self, body: Manifest, transitions: Iterable[Transition], now: datetime) -> None: ...


class Leaders(Protocol):
    """What a pass needs of the workers (glm_operator.cluster.workers.Workers)."""

    async def reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]: ...
