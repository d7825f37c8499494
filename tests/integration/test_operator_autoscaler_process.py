"""`glm-operator` as a process that scales: its own scrapes, its loop, its promises to workers, its metrics."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from glm_operator import names
from glm_operator.api.status import CONDITION_TYPES
from integration.autoscaler_world import SCALING, SLO
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import a_deployment_body
from integration.served_groups import address, served_groups
from integration.test_operator_process import START_S, Operator, an_operator

SETTINGS = {"DEMAND_PERIOD_S": 0.5, "LATENCY_PERIOD_S": 1.0, "POLL_S": 1.0, "RESYNC_S": 600.0}


def replicas(operator: Operator) -> int:
    return int(operator.fake.get("glmdeployments", "chat")["spec"]["replicas"])


async def test_a_load_step_is_answered_with_groups_and_an_edited_promise_restarts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeKubernetes()
    fake.pod_ip = address
    scaling = {**SCALING, "max": 3}
    body = fake.put("glmdeployments", a_deployment_body(replicas=1, slo=SLO, scaling=scaling))
    token = f"Bearer {names.management_token(body['metadata']['uid'])}"
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"GLM_OPERATOR_{name}", str(value))

    def serving() -> list[str]:
        pods = [name for name in fake.names("pods") if fake.get("pods", name)["status"].get("podIP")]
        return sorted({name.rpartition("-")[0] for name in pods})

    async with served_groups(4) as workers, asyncio.TaskGroup() as tasks:
        load = tasks.create_task(workers.run(serving))
        async with an_operator(tmp_path, fake, "--namespaces", "models", "--worker-image", "worker:1") as operator:
            first = workers.groups["chat-g0"]
            await operator.wait_for("promises at the first group", lambda: bool(first.puts), timeout_s=START_S)
            assert first.puts == [token]
            workers.requests_per_s = 1.0
            await operator.wait_for(
                "latency in the status", lambda: "ttftP95" in (_status(fake).get("latency") or {}), timeout_s=90
            )

            workers.requests_per_s = 10.0
            began = time.monotonic()
            await operator.wait_for("more groups", lambda: replicas(operator) == 3, timeout_s=90)
            print(f"1 -> 3 groups after {time.monotonic() - began:.1f} s")
            await operator.wait_for(
                "promises at every group", lambda: all(workers.groups[f"chat-g{n}"].puts for n in range(3))
            )

            pods = {name: fake.get("pods", name)["metadata"]["uid"] for name in fake.names("pods")}
            fake.edit("glmdeployments", "chat", lambda found: found["spec"].update(slo=_promising("2s")))
            began = time.monotonic()
            await operator.wait_for(
                "the edited promise", lambda: all(_has(workers.groups[f"chat-g{n}"], 2.0) for n in range(3))
            )
            print(f"an edited promise was at all groups after {time.monotonic() - began:.1f} s")
            assert {name: fake.get("pods", name)["metadata"]["uid"] for name in fake.names("pods")} == pods

            async with httpx.AsyncClient(trust_env=False) as http:
                metrics = (await http.get(f"{operator.url}/metrics")).text
            said = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in metrics.splitlines()}
            of_chat = next(key for key in said if key.startswith("glm_autoscaler_desired_groups{"))
            assert said[of_chat] == "3.0"
            assert sum(key.startswith("glm_operator_condition{") for key in said) == 3 * len(CONDITION_TYPES)
        load.cancel()
    log = (tmp_path / "operator.log").read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    history = _status(fake)["scaling"]["history"]
    assert all(entry["to"] > entry["from"] for entry in history)


def _status(fake: FakeKubernetes) -> dict[str, object]:
    found: dict[str, object] = fake.get("glmdeployments", "chat").get("status", {})
    return found


def _promising(ttft: str) -> dict[str, object]:
    return {"classes": [{"name": "chat", "ttft": ttft}]}


def _has(group: object, threshold_s: float) -> bool:
    promises = getattr(group, "promises", None)
    return promises is not None and promises["classes"][0]["thresholds_s"] == {"ttft": threshold_s}
