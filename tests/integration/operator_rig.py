"""An operator's pass wired to the fake Kubernetes: the real client, the real reconcile, no kopf."""

import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from glm_operator import names
from glm_operator.cluster import kube
from glm_operator.errors import Unavailable
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.reconcile.reconciler import Outcome, Reconciler
from integration.fake_kubernetes import FakeKubernetes, Manifest

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_deployment_body(name: str = "chat", **spec: Any) -> Manifest:
    """Return a GLMDeployment as a user writes it."""
    return {
        "metadata": {"name": name, "namespace": "models", "generation": 1},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu"},
            "parallelism": {"tensor": 1, "expert": 2},
            **spec,
        },
    }


class Died(BaseException):
    """The operator was killed right after one of its writes."""


class SilentWorkers:
    """Workers that nobody can reach: no pod of the fake has an address."""

    async def reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        return {}


@dataclass
class Rig:
    """The fake, and an operator that can be killed and restarted."""

    fake: FakeKubernetes
    configuration: client.Configuration
    dies_after: int | None = None  # writes
    writes: int = field(default=0)

    _operator: Reconciler | None = None

    async def run_pass(self, name: str = "chat") -> Outcome:
        """Run one pass; after a death, of a new operator that remembers nothing."""
        if self._operator is None:
            connected = _DyingKube(client.ApiClient(self.configuration), self)
            self._operator = Reconciler(connected, SilentWorkers(), "worker:1", now=lambda: NOW)
        try:
            return await self._operator.reconcile("models", name)
        except Died:
            await self.end()
            raise

    async def end(self) -> None:
        """End the operator."""
        if self._operator is not None:
            assert isinstance(self._operator.kube, kube.Kube)
            await self._operator.kube.__aexit__()
            self._operator = None

    async def settle(self, name: str = "chat") -> None:
        """Run passes and controllers until neither has anything to do; a dead operator is started again.

        A pass that is not settled is followed by another, as by the poll, even if nothing moved.
        """
        was_quiet = False
        for _ in range(60):
            try:
                outcome = await self.run_pass(name)
            except (Died, Unavailable):
                self.fake.step()
                continue
            is_quiet = not self.fake.step() and not outcome.changed
            if is_quiet and (outcome.settled or was_quiet):
                return
            was_quiet = is_quiet
        raise AssertionError("no end")

    def condition(self, kind: str, name: str = "chat") -> tuple[str, str, str]:
        conditions = self.fake.get("glmdeployments", name)["status"]["conditions"]
        return next((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == kind)

    def end_state(self) -> dict[str, Any]:
        """Return everything but what differs from run to run: uids, versions, records of specs that were passed by."""
        state = {}
        for (plural, _, name), manifest in sorted(self.fake.objects.items()):
            if plural not in ("events", "controllerrevisions"):
                state[f"{plural}/{name}"] = _without_identity(manifest)
        return state


class _DyingKube(kube.Kube):
    """The real client, whose process dies right after the write it is told."""

    def __init__(self, api: client.ApiClient, rig: Rig) -> None:
        super().__init__(api)
        self._rig = rig

    async def _request(self, method: str, path: str, **kwargs: Any) -> Manifest:
        result = await super()._request(method, path, **kwargs)
        if method != "get":
            self._rig.writes += 1
            if self._rig.writes == self._rig.dies_after:
                raise Died
        return result


@contextlib.asynccontextmanager
async def a_rig(prepare: Callable[[FakeKubernetes], object] | None = None) -> AsyncIterator[Rig]:
    """Serve a fake Kubernetes and return the operator beside it."""
    fake = FakeKubernetes()
    if prepare is not None:
        prepare(fake)
    server = TestServer(fake.app())
    await server.start_server()
    configuration = client.Configuration()
    configuration.host = str(server.make_url("")).rstrip("/")
    rig = Rig(fake, configuration)
    try:
        yield rig
    finally:
        await rig.end()
        await server.close()


def set_spec(rig: Rig, **spec: Any) -> None:
    rig.fake.edit("glmdeployments", "chat", lambda body: body["spec"].update(spec))


def revisions(rig: Rig, plural: str = "pods") -> dict[str, str]:
    return {
        name: rig.fake.get(plural, name)["metadata"]["labels"][names.REVISION_LABEL] for name in rig.fake.names(plural)
    }


def uids(rig: Rig, plural: str = "pods") -> dict[str, str]:
    return {name: rig.fake.get(plural, name)["metadata"]["uid"] for name in rig.fake.names(plural)}


def _without_identity(manifest: Manifest) -> Manifest:
    """Return a copy without uids, versions, and the hash of the manifest (it holds the owner's uid)."""
    found = copy.deepcopy(manifest)
    for name in ("uid", "resourceVersion", "generation"):
        found["metadata"].pop(name, None)
    found["metadata"].pop("annotations", None)
    for owner in found["metadata"].get("ownerReferences", []):
        owner.pop("uid")
    for condition in found.get("status", {}).get("conditions", []):
        condition.pop("observedGeneration", None)
    found.get("status", {}).pop("observedGeneration", None)
    return found
