"""What a pass needs of others: the API server, the cache of the watches and the workers, as protocols."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.gateway_state import GatewayState
from glm_operator.observe.observed import Observed, ObservedGroup, Seen
from glm_operator.observe.report import GroupReport
from glm_operator.status.measured import Measured


class Cluster(Protocol):
    """What a pass needs of the API server (glm_operator.cluster.kube.Kube)."""

    async def deployment(self, namespace: str, name: str) -> Manifest | None: ...
    async def observe(self, body: Manifest, now: datetime) -> Observed: ...
    async def apply(
        self, manifest: Manifest, owner: Manifest, observed: Observed, *, dry_run: bool = False
    ) -> bool: ...
    async def try_pod(self, pod: Manifest) -> None: ...
    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None: ...
    async def note(self, pod: str, namespace: str, uid: str, annotation: str, value: str) -> None: ...
    async def patch_status(self, body: Manifest, status: Mapping[str, Any]) -> bool: ...
    async def post_events(self, body: Manifest, events: Iterable[Trouble], now: datetime) -> None: ...


class Cache(Protocol):
    """What a pass reads of what the watches brought (glm_operator.cluster.cache.Cache)."""

    def seen(self, namespace: str, name: str, now: datetime) -> Seen | None:
        """Return a deployment as the watches know it; None if they may not know all of it yet."""

    def is_complete(self, namespace: str) -> bool:
        """Return whether all of a namespace is known."""

    def bodies(self) -> list[Manifest]:
        """Return every deployment that is known, as it was last seen."""

    def forget(self, name: tuple[str, str]) -> None:
        """Forget a deployment (namespace, name) that is gone, though no event told of it."""


class Gateways(Protocol):
    """What a pass needs of the gateways (glm_operator.cluster.gateway_pages.GatewayPages)."""

    async def states(self, pods: Iterable[GatewayPod]) -> dict[str, GatewayState]:
        """Return what each of the pods says, by its name; a silent one is left out."""


class Measurements(Protocol):
    """What a pass reads of what the autoscaler saw (glm_operator.handlers.autoscaler.board.Board)."""

    def is_measured(self, scaling: Scaling | None, slo: Slo | None) -> bool:
        """Whether a deployment with this spec is looked at."""

    def shown(self, namespace: str, name: str) -> Measured | None:
        """Return what the status shows of a deployment; None: nothing was measured since the operator began."""


class Leaders(Protocol):
    """What a pass needs of the workers (glm_operator.cluster.workers.Workers)."""

    async def reports(self, groups: Iterable[ObservedGroup], ask: Collection[str]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say: those in ask now, the others at the last poll."""

    async def fresh_reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say now; what one said before does not count."""

    async def put_slo(self, group: ObservedGroup, token: str, body: Mapping[str, object]) -> str | None:
        """Put promises to the leader of a group; return their digest, None where the worker is of the version before.

        Raises NotTaken when the worker does not answer, PutRefused when it refuses.
        """

    async def put_policy(self, group: ObservedGroup, token: str, body: Mapping[str, object]) -> str | None:
        """Put a policy to the leader of a group, as put_slo."""
