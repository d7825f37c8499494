"""An operator's pass wired to the fake Kubernetes: the real client, the real reconcile, no kopf."""

import contextlib
import copy
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from glm_operator import names
from glm_operator.cluster import kube
from glm_operator.cluster.cache import OWNED_KINDS, Cache
from glm_operator.errors import Unavailable
from glm_operator.handlers.autoscaler.board import Board
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.gateway_state import GatewayState
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport, policy_digest, slo_digest
from glm_operator.reconcile.adoptions import Adoptions, is_adopting
from glm_operator.reconcile.certificates.keeper import Certificates
from glm_operator.reconcile.reconciler import Outcome, Reconciler
from glm_operator.render.policies import Openings
from glm_operator.rollout.front import House
from integration.fake_kubernetes import FakeKubernetes, Manifest

PLURALS = {kind: f"{kind.lower()}s".replace("ys", "ies") for kind in OWNED_KINDS}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_deployment_body(name: str = "chat", **spec: Any) -> Manifest:
    """Return a GLMDeployment as a user writes it."""
    return {
        "metadata": {"name": name, "namespace": "models", "generation": 1},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu"},
            "parallelism": {"tensor": 1, "expert": 2},
            "gateway": {"enabled": False},
            **spec,
        },
    }


class Died(BaseException):
    """The operator was killed right after one of its writes."""


@dataclass
class KnownWorkers:
    """Workers that say what a test has them say, by group; nobody can reach the others."""

    said: dict[str, GroupReport] = field(default_factory=dict)
    num_fresh: int = 0  # how often they were asked for a removal
    puts: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)  # group, token, promises
    puts_fail: Exception | None = None  # how promises are answered, if not taken
    has_slo_page: bool = True
    policies: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)  # group, token, policy
    policies_fail: Exception | None = None  # how a policy is answered, if not taken
    has_policy_page: bool = True
    unheard: set[str] = field(default_factory=set)  # groups that this operator has not heard: they answer who asks

    async def reports(self, groups: Iterable[ObservedGroup], ask: Collection[str]) -> dict[str, GroupReport]:
        self.unheard -= set(ask)
        heard = self.said.keys() - self.unheard
        return {group.name: self.said[group.name] for group in groups if group.name in heard}

    async def fresh_reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        self.num_fresh += 1
        return await self.reports(groups, ())

    async def put_slo(self, group: ObservedGroup, token: str, body: Mapping[str, Any]) -> str | None:
        if self.puts_fail is not None:
            raise self.puts_fail
        if not self.has_slo_page:
            return None
        self.puts.append((group.name, token, body))
        return self._has(group.name, slo_digest=slo_digest(body))

    async def put_policy(self, group: ObservedGroup, token: str, body: Mapping[str, Any]) -> str | None:
        if self.policies_fail is not None:
            raise self.policies_fail
        if not self.has_policy_page:
            return None
        self.policies.append((group.name, token, body))
        self.said[group.name] = self.said[group.name].model_copy(update={"awaits_policy": False})
        return self._has(group.name, policy_digest=policy_digest(body))

    def _has(self, group: str, **digest: str) -> str:
        said = self.said[group].model_dump(exclude_unset=True) | digest
        self.said[group] = GroupReport.model_validate(said)
        return next(iter(digest.values()))


@dataclass
class KnownGateways:
    """Pods of gateways that say what a test has them say, by name; the others are silent."""

    said: dict[str, GatewayState] = field(default_factory=dict)

    async def states(self, pods: Iterable[GatewayPod]) -> dict[str, GatewayState]:
        return {pod.name: self.said[pod.name] for pod in pods if pod.name in self.said}


@dataclass
class Rig:
    """The fake, and an operator that can be killed and restarted. Its watches bring everything before each pass."""

    fake: FakeKubernetes
    configuration: client.Configuration
    workers: KnownWorkers = field(default_factory=KnownWorkers)
    gateways: KnownGateways = field(default_factory=KnownGateways)
    image: str = "worker:1"
    gateway_image: str = "operator:1"
    network_policies: bool = True
    certificates: bool = False
    adoptions_at_once: int = 1
    now: datetime = NOW
    watches_bring: bool = True
    dies_after: int | None = None  # writes
    writes: int = field(default=0)
    reads: int = field(default=0)

    cache: Cache = field(default_factory=Cache)
    woken: set[str] = field(default_factory=set)  # deployments of which the board wants a pass; no pass runs by itself
    has_prometheus: bool = False
    board: Board = field(init=False)
    _operator: Reconciler | None = None

    def __post_init__(self) -> None:
        self.board = self._new_board()

    def _new_board(self) -> Board:
        return Board(lambda name: self.woken.add(name[1]), has_prometheus=self.has_prometheus)

    @property
    def kube(self) -> kube.Kube:
        """The client of the operator that runs."""
        assert self._operator is not None
        assert isinstance(self._operator.kube, kube.Kube)
        return self._operator.kube

    async def run_pass(self, name: str = "chat") -> Outcome:
        """Run one pass; after a death, of a new operator that remembers nothing."""
        if self._operator is None:
            self.cache, self.board = Cache(), self._new_board()
            connected = _DyingKube(client.ApiClient(self.configuration), self)
            adoptions = Adoptions(self.adoptions_at_once, self._adopting, lambda _: None)
            self._operator = Reconciler(
                connected,
                self.cache,
                self.workers,
                adoptions,
                self.image,
                now=lambda: self.now,
                measurements=self.board,
                gateways=self.gateways,
                house=House(self.gateway_image, Openings() if self.network_policies else None, self.certificates),
                certificates=Certificates(connected, now=lambda: self.now),
            )
        if self.watches_bring:
            self.bring()
        try:
            return await self._operator.reconcile("models", name)
        except Died:
            await self.end()
            raise

    def bring(self) -> None:
        """Let the watches bring everything there is with our label."""
        for kind, plural in PLURALS.items():
            items = [item for key, item in self.fake.objects.items() if key[0] == plural]
            ours = [item for item in items if names.MANAGED_BY_LABEL in item["metadata"].get("labels", {})]
            self.cache.replace(kind, None, copy.deepcopy(ours))
        bodies = [item for key, item in self.fake.objects.items() if key[0] == "glmdeployments"]
        self.cache.replace(names.KIND, None, copy.deepcopy(bodies))

    def _adopting(self) -> list[tuple[str, str]]:
        seen = self.cache.all_seen(self.now)
        return [("models", each.body["metadata"]["name"]) for each in seen if is_adopting(each.observed)]

    async def end(self) -> None:
        """End the operator."""
        if self._operator is not None:
            await self.kube.__aexit__()
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
        """Return everything but what differs from run to run: uids, versions, records of specs that were passed by.

        Groups are numbered anew: which of several stay depends on which of them serve when one has to go.
        """
        state = {}
        for (plural, _, name), manifest in sorted(self.fake.objects.items()):
            if plural not in ("events", "controllerrevisions"):
                state[f"{plural}/{name}"] = _without_identity(manifest)
        text = json.dumps(state)
        found = sorted({int(index) for index in re.findall(r"chat-g(\d+)", text)})
        for number, index in enumerate(found):
            text = re.sub(rf"chat-g{index}\b", f"chat-g{number}", text)
        renamed: dict[str, Any] = json.loads(text)
        return renamed


class _DyingKube(kube.Kube):
    """The real client, whose process dies right after the write it is told."""

    def __init__(self, api: client.ApiClient, rig: Rig) -> None:
        super().__init__(api, wrote=lambda item: rig.cache.put(item) and None, removed=rig.cache.remove)
        self._rig = rig

    async def _request(self, method: str, path: str, **kwargs: Any) -> Manifest:
        result = await super()._request(method, path, **kwargs)
        if method == "get":
            self._rig.reads += 1
        else:
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


def set_spec(rig: Rig, deployment: str = "chat", **spec: Any) -> None:
    rig.fake.edit("glmdeployments", deployment, lambda body: body["spec"].update(spec))


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
