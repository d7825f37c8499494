"""`glm-operator` as a process, against the fake Kubernetes: watches, the loop, the probes, the end on SIGTERM."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from integration.fake_kubernetes import FakeKubernetes, Refused
from integration.free_ports import free_port
from integration.operator_rig import a_deployment_body

START_S = 120.0  # importing kopf and the client takes seconds of CPU, on a machine that may be busy
REACT_S = 60.0
STARTING_RESYNC_S = 0.5


@dataclass
class Operator:
    """A running operator and the cluster it sees."""

    fake: FakeKubernetes
    process: asyncio.subprocess.Process
    url: str

    async def wait_for(self, what: str, is_so: Callable[[], bool], *, timeout_s: float = REACT_S) -> None:
        """Run the controllers until is_so(); fail with what the operator said if it never is."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.returncode is None, f"the operator ended while waiting for {what}"
            assert time.monotonic() < deadline, f"{what} was not so within {timeout_s} s: {self.fake.writes}"
            self.fake.step()
            await asyncio.sleep(0.05)

    def num_ready(self, name: str = "chat") -> int:
        return int(self.fake.get("glmdeployments", name).get("status", {}).get("readyReplicas", 0))

    def is_ready(self, name: str = "chat") -> bool:
        conditions = self.fake.get("glmdeployments", name).get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


@contextlib.asynccontextmanager
async def an_operator(
    folder: Path, fake: FakeKubernetes, *arguments: str, program: Sequence[str] = ("-m", "glm_operator.main")
) -> AsyncIterator[Operator]:
    server = TestServer(fake.app())
    await server.start_server()
    cluster = {"name": "c", "cluster": {"server": str(server.make_url("")).rstrip("/")}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = folder / "kubeconfig"
    users = [{"name": "u", "user": {}}]
    config = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "x"}
    kubeconfig.write_text(yaml.safe_dump(config))
    port = free_port()
    command = [sys.executable, *program, "--kubeconfig", str(kubeconfig), "--management-port", str(port)]
    log = (folder / "operator.log").open("wb")
    process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=log, stderr=log)
    try:
        yield Operator(fake, process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        log.close()
        await server.close()


async def test_an_operator_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKubernetes()
    fake.put("glmdeployments", a_deployment_body())
    monkeypatch.setenv("GLM_OPERATOR_RESYNC_S", str(10 * REACT_S))  # what wakes it must be events
    monkeypatch.setenv("GLM_OPERATOR_STARTING_RESYNC_S", str(STARTING_RESYNC_S))
    async with an_operator(tmp_path, fake, "--namespaces", "models", "--worker-image", "worker:1") as operator:
        await operator.wait_for("the deployment ready", operator.is_ready, timeout_s=START_S)

        # events wake it: an edit of the resource, a loss of something owned, another resource
        fake.edit("glmdeployments", "chat", lambda body: body["spec"].update(replicas=2))
        await operator.wait_for("a second group", lambda: "chat-g1-0" in fake.names("pods"), timeout_s=REACT_S)
        await operator.wait_for("both ready", lambda: operator.num_ready() == 2, timeout_s=REACT_S)
        await _a_webhook_that_is_down_is_asked_ever_more_rarely(operator)
        await operator.wait_for("the Service again", lambda: "chat" in fake.names("services"))
        fake.put("glmdeployments", a_deployment_body("other"))
        await operator.wait_for("the other deployment ready", lambda: operator.is_ready("other"))

        async with httpx.AsyncClient(trust_env=False) as http:
            live = await http.get(f"{operator.url}/livez")
            metrics = (await http.get(f"{operator.url}/metrics")).text
        assert live.status_code == 200
        assert 'glm_operator_reconcile_errors_total{outcome="error"} 0.0' in metrics
        assert "glm_operator_queue_length" in metrics

        operator.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(REACT_S):
            assert await operator.process.wait() == 0

    log = (tmp_path / "operator.log").read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    # no kind of handler was used for which kopf writes to resources: they can be deleted while the operator is down
    assert {write for write in fake.writes if "glmdeployments" in write} == {
        "PATCH glmdeployments/chat/status",
        "PATCH glmdeployments/other/status",
    }
    for name in ("chat", "other"):
        assert not {"finalizers", "annotations"} & fake.get("glmdeployments", name)["metadata"].keys()


async def _a_webhook_that_is_down_is_asked_ever_more_rarely(operator: Operator) -> None:
    """Each attempt writes other words into the status, and a write of the status is an event of the deployment."""
    attempts: list[float] = []

    def refuse(write: str) -> None:
        if write == "PATCH services/chat":
            attempts.append(time.monotonic())
            raise Refused(500, "InternalError", f"failed calling webhook: read tcp 10.0.0.1:{len(attempts)}: reset")

    operator.fake.before_write = refuse
    operator.fake.delete(("services", "models", "chat"))
    await operator.wait_for("three attempts", lambda: len(attempts) >= 3)
    operator.fake.before_write = lambda _: None
    assert attempts[2] - attempts[0] > 2 * STARTING_RESYNC_S


class ClosedKubernetes(FakeKubernetes):
    """One that shows nobody anything."""

    num_refused = 0

    async def _list(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        self.num_refused += 1
        raise Refused(403, "Forbidden")


async def test_an_operator_that_still_waits_for_the_api_server_ends_at_once(tmp_path: Path) -> None:
    fake = ClosedKubernetes()
    async with an_operator(tmp_path, fake, "--namespaces", "models") as operator:
        await operator.wait_for("a list refused", lambda: fake.num_refused > 0, timeout_s=START_S)
        operator.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(REACT_S):
            assert await operator.process.wait() == -signal.SIGTERM


async def test_an_operator_whose_loop_ends_does_not_stay_up_idle(tmp_path: Path) -> None:
    broken = "import glm_operator.handlers.loop as loop; import glm_operator.main as main\n"
    broken += "async def run(self): raise RuntimeError('the loop broke')\n"
    broken += "loop.Loop.run = run; main.main()"
    async with an_operator(tmp_path, FakeKubernetes(), program=["-c", broken]) as operator:
        async with asyncio.timeout(START_S):
            assert await operator.process.wait() != 0
    assert "the loop broke" in (tmp_path / "operator.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log-level", "loud"], "GLM_OPERATOR_LOG_LEVEL=loud"),
        (["--kubeconfig", "/no/such/file"], "kubeconfig /no/such/file"),
    ],
)
async def test_settings_that_cannot_be_end_it_with_a_sentence(arguments: list[str], said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "glm_operator.main", *arguments, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(START_S):
        _, errors = await process.communicate()
    assert process.returncode != 0
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()
