"""A deployment that Prometheus watches: real operator and gateway as processes, real workers, load, a real Prometheus.

Only the API server is a fake: what the operator wants to run on it runs as processes of this machine, as in local mode,
and pods of the fake are ready when these are. So every series of workers, gateway and operator is the real one.
"""

import asyncio
import contextlib
import copy
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from aiohttp import web

from glm_operator import names
from glm_operator.api.spec import parse_deployment
from glm_operator.layout import Layout, plan
from glm_operator.local import processes
from glm_operator.local.down import stop_pods
from glm_operator.local.management import Management
from glm_operator.local.pods import index_of
from glm_operator.local.state import PodRecord, StateFolder
from glm_operator.local.up import bring_up
from glm_operator.render import render
from integration.fake_kubernetes import FakeKubernetes
from integration.gateway_process import a_gateway_process, model_of
from integration.prometheus_process import PrometheusProcess, prometheus_process
from integration.test_operator_process import Operator, an_operator

ROOT = Path(__file__).resolve().parents[2]
NAME = "chat"
DEADLINE_S = 300.0  # of what takes seconds on an idle machine
TICK_S = 0.2
FRONT = "127.77.0.1"
"""Where the gateway is: at the ports that a pod has."""

BOOKMARK_S = 10.0
SCRAPE_JOB = {"job_name": "glm", "honor_labels": True}
SPEC = {
    "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
    "hardware": {"device": "cpu"},
    "parallelism": {"tensor": 1, "expert": 2},
    "engine": {"limits": {"maxNumSeqs": 4}},
    "replicas": 1,
    "slo": {
        "classes": [
            {
                "name": "thinking",
                "match": {"thinking": "Enabled"},
                "ttft": "1s",
                "ttfa": "5s",
                "e2e": "1m",
                "objective": 95,
            },
            {"name": "direct", "match": {"thinking": "Disabled"}, "ttft": "400ms", "itl": "150ms", "objective": 95},
        ]
    },
    "scaling": {
        "min": 1,
        "max": 2,
        "warmUpSeconds": 0,
        "up": {"groups": 4},
        "down": {"stabilizationSeconds": 10, "periodSeconds": 1},
    },
}
BUDGET = 4
SETTINGS = {"DEMAND_PERIOD_S": 1.0, "LATENCY_PERIOD_S": 2.0, "POLL_S": 1.0, "RESYNC_S": 5.0}
QUESTIONS = ("What is 12+30?", "What is the weather in Paris?", "Count to ten.")


class Nodes(FakeKubernetes):
    """The fake API server, with pods that are ready when the processes behind them are."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: dict[str, str] = {}  # of pods that run, by name
        self.front = ""  # the address of the gateway, which stands for the pod of one; empty: it does not run yet
        self.ready: set[str] = set()

    async def _watch(
        self, request: web.Request, plural: str, is_wanted: Callable[[dict[str, Any]], bool]
    ) -> web.StreamResponse:
        """Watch as the base does, and send bookmarks as an API server does: without them a quiet watch seems dead."""
        response = web.StreamResponse()
        await response.prepare(request)
        seen, told_s = int(request.query.get("resourceVersion") or 0), time.monotonic()
        while True:
            for version, kind, event, manifest in [entry for entry in self._log if entry[0] > seen]:
                seen = version
                if kind == plural and is_wanted(manifest):
                    await response.write(json.dumps({"type": event, "object": manifest}).encode() + b"\n")
            if request.query.get("allowWatchBookmarks") == "true" and time.monotonic() - told_s > BOOKMARK_S:
                told_s = time.monotonic()
                bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}
                await response.write(json.dumps(bookmark).encode() + b"\n")
            await asyncio.sleep(TICK_S / 4)

    def _run_pods(self) -> None:
        for key, pod in list(self.objects.items()):
            if key[0] != "pods" or "deletionTimestamp" in pod["metadata"]:
                continue
            is_front = pod["metadata"]["labels"].get(names.COMPONENT_LABEL) == names.GATEWAY_ROLE
            address = self.front if is_front else self.addresses.get(key[2], "")
            is_ready = bool(address) if is_front else key[2] in self.ready
            conditions = [{"type": "PodScheduled", "status": "True"}]
            conditions.append({"type": "Ready", "status": "True" if is_ready else "False"})
            status: dict[str, Any] = {"conditions": conditions}
            if address:
                status["podIP"] = address
            if status != pod["status"]:
                self._store(key, {**copy.deepcopy(pod), "status": status})


@dataclass
class Load:
    """Clients that ask one thing after another. Half of what is asked for is to be thought about."""

    urls: Callable[[], list[str]]
    clients: int = 0
    answered: int = 0
    failed: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def set(self, clients: int) -> None:
        """Have so many clients from now on. One that goes finishes nothing."""
        while len(self._tasks) < clients:
            self._tasks.append(asyncio.create_task(self._ask(len(self._tasks))))
        while len(self._tasks) > clients:
            self._tasks.pop().cancel()

    async def _ask(self, number: int) -> None:
        turn = itertools.count(number)
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http:
            while True:
                one = next(turn)
                if not (urls := self.urls()):
                    await asyncio.sleep(TICK_S)
                    continue
                body = {
                    "model": "glm-nano",
                    "messages": [{"role": "user", "content": QUESTIONS[one % len(QUESTIONS)]}],
                    "max_tokens": 48,
                    "chat_template_kwargs": {"enable_thinking": one % 2 == 0},
                }
                try:
                    response = await http.post(f"{urls[one % len(urls)]}/v1/chat/completions", json=body)
                    self.answered += response.status_code == httpx.codes.OK
                    self.failed += response.status_code != httpx.codes.OK
                except httpx.TransportError:
                    self.failed += 1
                    await asyncio.sleep(TICK_S)


@dataclass
class World:
    """What runs, and the Prometheus that watches it."""

    nodes: Nodes
    folder: StateFolder
    operator: Operator
    prometheus: PrometheusProcess
    load: Load
    http: httpx.AsyncClient

    @property
    def serving(self) -> int:
        return len(self.nodes.ready)

    @property
    def spec_groups(self) -> int:
        return int(self.nodes.get("glmdeployments", NAME)["spec"]["replicas"])

    async def until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait until it is so; fail with what the operator saw if it never is."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not is_so():
            saw = json.dumps(self.nodes.get("glmdeployments", NAME).get("status", {}).get("scaling"))
            assert self.operator.process.returncode is None, f"the operator ended while waiting for {what}"
            assert time.monotonic() < deadline_s, f"{what} was not so within {DEADLINE_S} s: {saw}"
            await asyncio.sleep(TICK_S)

    async def pass_time(self, seconds: float) -> None:
        """Let Prometheus see what goes on for so long, by its own clock."""
        until_s = time.time() + seconds
        await self.until(f"{seconds} s later", lambda: time.time() >= until_s)

    async def until_answered(self, expr: str) -> None:
        """Wait until Prometheus has something for a query now."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not await self.query(expr):
            assert time.monotonic() < deadline_s, f"{expr} had no answer within {DEADLINE_S} s"
            await asyncio.sleep(TICK_S)

    async def kill(self, group: str) -> None:
        """End every process of a group as a lost machine does; it stays away until it is revived."""
        for pod in self._pods(group):
            for process in processes.members(pod.token):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        await self.until(f"{group} is not ready", lambda: f"{group}-0" not in self.nodes.ready)

    async def revive(self) -> None:
        """Start again what was killed, as a kubelet does at the end of its back-off."""
        indices = sorted(index_of(name) for name in self.nodes.names("statefulsets"))
        await asyncio.to_thread(_bring_up, self.nodes, self.folder, indices)

    def _pods(self, group: str) -> list[PodRecord]:
        return [pod for state in self.folder.deployments() for pod in state.pods if pod.group == group]

    async def api(self, path: str, **parameters: str | float) -> dict[str, Any]:
        """Return the answer of Prometheus's HTTP API, errors included."""
        answer = await self.http.get(f"{self.prometheus.url}/api/v1/{path}", params=parameters)
        found: dict[str, Any] = answer.json()
        return found

    async def query(self, expr: str) -> list[dict[str, Any]]:
        answer = await self.api("query", query=expr)
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


async def _run_nodes(nodes: Nodes, folder: StateFolder, management: Management) -> None:
    """Be controllers, scheduler and kubelet: run what the StatefulSets want as processes of this machine."""
    running: list[int] = []
    while True:
        nodes.step()
        wanted = sorted(index_of(name) for name in nodes.names("statefulsets"))
        if wanted != running:
            await asyncio.to_thread(_bring_up, nodes, folder, wanted)
            running = wanted
        leaders = {pod.name: pod.address for state in folder.deployments() for pod in state.pods if pod.index == 0}
        nodes.addresses = leaders
        nodes.ready = await asyncio.to_thread(_ready, leaders, management) & set(nodes.names("pods"))
        await asyncio.sleep(TICK_S)


async def _tell_groups(nodes: Nodes, path: Path) -> None:
    """Write the gateway's file of groups, each time that they are others."""
    told = ""
    while True:
        groups = [
            {"name": pod.removesuffix("-0"), "host": address, "port": names.HTTP_PORT, "ready": pod in nodes.ready}
            for pod, address in sorted(nodes.addresses.items())
        ]
        if (text := json.dumps({"groups": groups})) != told:
            part = path.with_suffix(".part")
            part.write_text(text)
            part.rename(path)
            told = text
        await asyncio.sleep(TICK_S)


def _gateway_model(nodes: Nodes, groups: Path) -> dict[str, Any]:
    """Return the deployment's model as the gateway's file has it, with what its workers know a gateway by."""
    deployment = parse_deployment(nodes.get("glmdeployments", NAME))
    model = model_of("glm-nano", groups, deployment=NAME, slo=deployment.spec.slo.for_workers())
    model["groups"]["namespace"] = "models"
    return {**model, "token": names.gateway_token(deployment.metadata.uid)}


def _ready(leaders: Mapping[str, str], management: Management) -> set[str]:
    return {pod for pod, address in leaders.items() if management.is_ready(address)}


def _bring_up(nodes: Nodes, folder: StateFolder, indices: list[int]) -> None:
    deployment = parse_deployment(nodes.get("glmdeployments", NAME))
    layout = plan(deployment)
    assert isinstance(layout, Layout), layout
    with folder.locked():
        bring_up(folder, NAME, render(deployment, layout, indices), processes.worker_program())


def _rules() -> list[dict[str, Any]]:
    """Return every rule of the chart, so that the real data are put through them, too."""
    files = (ROOT / "charts/glm-operator/files" / name for name in ("alerts.yaml", "recording.yaml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


@contextlib.asynccontextmanager
async def an_observed_world(folder: Path) -> AsyncIterator[World]:
    """Yield the world once its first group serves and Prometheus has seen it. At the end nothing of it runs.

    Needs XDG_STATE_HOME to be a folder of the caller's own, and GLM_OPERATOR_* not to be set otherwise.
    """
    nodes, state = Nodes(), StateFolder.of_user()
    nodes.put("glmdeployments", {"metadata": {"name": NAME, "namespace": "models", "generation": 1}, "spec": SPEC})
    targets, groups = folder / "targets.json", folder / "groups.json"
    targets.write_text("[]")
    jobs = [{**SCRAPE_JOB, "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}]
    with prometheus_process(folder / "prometheus", jobs, rules=_rules()) as prometheus, Management() as management:
        settings = {**SETTINGS, "PROMETHEUS_URL": prometheus.url, "GPU_BUDGETS": json.dumps({"models": BUDGET})}
        os.environ |= {f"GLM_OPERATOR_{name}": str(value) for name, value in settings.items()}
        kubelet = asyncio.create_task(_run_nodes(nodes, state, management))
        telling = asyncio.create_task(_tell_groups(nodes, groups))
        urls: list[str] = []
        load = Load(lambda: urls)
        try:
            arguments = ("--namespaces", "models", "--worker-image", "worker:1")
            async with (
                an_operator(folder, nodes, *arguments) as operator,
                httpx.AsyncClient(trust_env=False, timeout=30) as http,
                # Who waits, waits at the workers: that is what scaling goes by here.
                a_gateway_process(
                    folder,
                    host=FRONT,
                    port=names.HTTP_PORT,
                    managementPort=names.MANAGEMENT_PORT,
                    models=[_gateway_model(nodes, groups)],
                    overload={"enabled": False},
                ) as gateway,
            ):
                nodes.front = FRONT
                urls.append(gateway.url)
                world = World(nodes, state, operator, prometheus, load, http)
                await world.until("the first pod has an address", lambda: bool(nodes.addresses))
                network = next(iter(nodes.addresses.values())).rpartition(".")[0].rpartition(".")[0]
                leaders = [f"{network}.{index}.1:{names.MANAGEMENT_PORT}" for index in range(2)]
                others = [url.removeprefix("http://") for url in (operator.url, gateway.management)]
                targets.write_text(json.dumps([{"targets": [*leaders, *others]}]))
                await world.until("the first group serves", lambda: world.serving == 1)
                yield world
        finally:
            load.set(0)
            for task in (kubelet, telling):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for name in settings:
                os.environ.pop(f"GLM_OPERATOR_{name}", None)
            for each in state.deployments():
                stop_pods(each.pods, deadline_s=0)
                state.remove(each)
