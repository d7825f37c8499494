"""A deployment that is scaled: the fake Kubernetes, passes, the autoscaler's looks, groups under load; on one clock."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from glm_operator import names
from glm_operator.handlers.autoscaler.scheduler import Autoscaler, Listens
from glm_operator.observe.report import GroupReport
from integration.fake_kubernetes import FakeKubernetes
from integration.metered_fleet import PERIOD_S, Fleet
from integration.operator_rig import NOW, Rig, a_deployment_body, a_rig

NAME = ("models", "chat")
SLO = {"classes": [{"name": "chat", "ttft": "500ms"}]}
SCALING = {"min": 1, "max": 4, "warmUpSeconds": 0, "up": {"groups": 4}, "down": {"stabilizationSeconds": 60}}


@dataclass
class World:
    """Everything around one deployment named chat."""

    rig: Rig
    fleet: Fleet = field(default_factory=lambda: Fleet(NOW.timestamp()))
    gpu_budgets: dict[str, int] = field(default_factory=dict)
    is_behind: bool = False  # the watches bring nothing new
    gateways: Listens | None = None
    autoscaler: Autoscaler = field(init=False)

    @property
    def fake(self) -> FakeKubernetes:
        return self.rig.fake

    async def start(self) -> None:
        """Start an operator; it remembers nothing of the one before."""
        await self.rig.end()
        await self.rig.run_pass()
        self.autoscaler = Autoscaler(
            self.rig.board,
            kube=self.rig.kube,
            cache=self.rig.cache,
            sources=self.fleet,
            workers=self.rig.workers,
            now=lambda: self.rig.now,
            period_s=PERIOD_S,
            gpu_budgets=self.gpu_budgets,
            gateways=self.gateways,
        )
        await self.rig.settle()

    async def run(self, seconds: float, requests_per_s: float | None = None) -> None:
        """Let time pass under a load: a look each period, and passes only where something asks for them."""
        if requests_per_s is not None:
            self.fleet.requests_per_s = requests_per_s
        for _ in range(round(seconds / PERIOD_S)):
            self.rig.now += timedelta(seconds=PERIOD_S)
            self.fleet.advance(self.serving())
            if not self.is_behind:
                self.rig.bring()
            versions = self._versions()
            for name in self.autoscaler.measured():
                await self.autoscaler.look(name)
            if self.rig.woken or versions != self._versions():
                self.rig.woken.clear()
                await self.rig.settle()

    def serving(self) -> list[str]:
        """Return the groups whose pods are ready."""
        pods = self.fake.names("pods")
        found = [self.fake.get("pods", name) for name in pods]
        ready = [pod["metadata"]["labels"].get(names.GROUP_LABEL) for pod in found if pod["status"].get("podIP")]
        return sorted({group for group in ready if group})

    def _versions(self) -> list[Any]:
        return [self.fake.get("glmdeployments", name)["spec"] for name in self.fake.names("glmdeployments")]

    @property
    def replicas(self) -> int:
        return int(self.fake.get("glmdeployments", "chat")["spec"].get("replicas", 1))

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.fake.get("glmdeployments", "chat")["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        status, reason, _ = self.rig.condition(kind)
        return status, reason

    def events(self, *reasons: str) -> list[tuple[str, str]]:
        """Return what people were told: reason and message, of these reasons."""
        found = [event for (kind, _, _), event in self.fake.objects.items() if kind == "events"]
        return [(each["reason"], each["message"]) for each in found if each["reason"] in reasons]

    def history(self) -> list[tuple[int, int, str]]:
        """Return the history of the status, oldest first."""
        found = reversed(self.status["scaling"]["history"])
        return [(each["from"], each["to"], each["reason"]) for each in found]

    def edit(self, **spec: Any) -> None:
        self.fake.edit("glmdeployments", "chat", lambda body: body["spec"].update(spec))

    def hear(self, group: str, **said: Any) -> None:
        """Let the workers of a group say something at /group."""
        self.rig.workers.said[group] = GroupReport.model_validate({"state": "serving", **said})


@contextlib.asynccontextmanager
async def a_world(**spec: Any) -> AsyncIterator[World]:
    """Yield a deployment with a promise, scaled by load within 1 and 4, whose groups serve."""
    whole = {"replicas": 1, "slo": SLO, "scaling": SCALING, **spec}

    def prepare(fake: FakeKubernetes) -> None:
        fake.pod_ip = lambda _: "10.0.0.1"
        fake.put("glmdeployments", a_deployment_body(**whole))

    async with a_rig(prepare) as rig:
        world = World(rig)
        await world.start()
        yield world
