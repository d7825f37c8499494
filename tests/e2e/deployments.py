"""GLMDeployments on the cluster under test: made, watched, asked."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from e2e.api import path_of
from e2e.target import Target
from glm_cluster.errors import CommandFailed
from glm_operator.names import WORKER_CONTAINER

TIMEOUT = openai.Timeout(60, connect=3)
"""A connection begun before kube-proxy knows a new Service is never answered, however often its SYN is sent again."""

POLL_S = 0.3
"""Between two looks. One that is a kubectl takes 0.05 s of a CPU, which what is waited for may need."""

NOT_YET = (AssertionError, LookupError, OSError, CommandFailed, httpx.HTTPError, openai.OpenAIError)
"""What a look at a cluster that is still on its way may raise. A stream that breaks raises httpx's errors."""

KILL_RANK = """
import os, pathlib, signal, sys
rank, sig = sys.argv[1], int(sys.argv[2])
names = pathlib.Path("/proc").glob("[0-9]*/comm")
found = [path.parent.name for path in names if path.read_text().strip() == f"glm-rank-{rank}"]
assert len(found) == 1, found
os.kill(int(found[0]), sig)
print(found[0])
"""
"""Runs in a worker's container, which has Python and no tool to signal a process by name."""


def wait_for(what: str, is_so: Callable[[], object], *, timeout_s: float, poll_s: float = POLL_S) -> None:
    """Return when is_so() is true; fail with its last value, or what it last raised, when it never was."""
    deadline = time.monotonic() + timeout_s
    while True:
        last: object
        try:
            last = is_so()
            if last:
                return
        except NOT_YET as error:
            last = f"{type(error).__name__}: {error}"
        assert time.monotonic() < deadline, f"{what} was not so within {timeout_s:.0f} s; last: {last}"
        time.sleep(poll_s)


def nano(name: str, namespace: str, *, ranks_per_pod: int = 2, ranks: int = 2, **hardware: object) -> dict[str, Any]:
    """Return a GLMDeployment of glm-nano behind a gateway that lets everybody in.

    Its pods accept for a second when they stop: not for new chats meanwhile.
    """
    return {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu", "ranksPerPod": ranks_per_pod, **hardware},
            "parallelism": {"tensor": ranks, "expert": ranks},
            "engine": {"limits": {"heartbeatLimitSeconds": 5, "drainAcceptSeconds": 1}},
            "access": {"auth": "None"},
        },
    }


@dataclass(frozen=True)
class Deployed:
    """One GLMDeployment by name. key: that its clients send."""

    target: Target
    name: str
    namespace: str
    key: str = "unused"

    def read(self) -> dict[str, Any]:
        return self.target.read("glmdeployments", self.name, self.namespace)

    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.read()["spec"]
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.read().get("status", {})
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """Return a condition that speaks of the present spec; LookupError until there is one."""
        return condition_of(self.read(), kind)

    def wait_ready(self, *, timeout_s: float = 180.0) -> None:
        self.target.kubectl(
            "wait", "--for=condition=Ready", f"glmd/{self.name}", "-n", self.namespace,
            f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 10,
        )  # fmt: skip

    def wait_settled(self, ready: str, *, timeout_s: float = 180.0) -> None:
        """Wait until the status of this very generation counts ready groups like `2/2` and nothing is left to do."""

        def is_settled() -> bool:
            found = self.read()
            progressing, is_ready = condition_of(found, "Progressing"), condition_of(found, "Ready")
            return (found["status"]["ready"], progressing["status"], is_ready["status"]) == (ready, "False", "True")

        wait_for(f"{self.name} settled at {ready}", is_settled, timeout_s=timeout_s)

    def patch(self, **spec: object) -> None:
        """Merge fields into the spec; None unsets one."""
        change = json.dumps({"spec": spec})
        self.target.kubectl("patch", "glmd", self.name, "-n", self.namespace, "--type=merge", "-p", change)

    def replace(self, field: str, value: object) -> None:
        """Put a field of the spec back as it was read."""
        change = json.dumps([{"op": "replace", "path": f"/spec/{field}", "value": value}])
        self.target.kubectl("patch", "glmd", self.name, "-n", self.namespace, "--type=json", "-p", change)

    def set_max_num_seqs(self, value: int | None) -> None:
        """Change what makes a new revision and does no harm; None unsets it."""
        self.patch(engine={"limits": {"maxNumSeqs": value}})

    def scale(self, replicas: int) -> None:
        self.target.kubectl("scale", f"glmd/{self.name}", "-n", self.namespace, f"--replicas={replicas}")

    def delete(self) -> None:
        self.target.kubectl("delete", "glmd", self.name, "-n", self.namespace, "--ignore-not-found", "--timeout=60s")

    def pods(self, role: str = "worker") -> list[dict[str, Any]]:
        """Return the pods of its groups, or of its gateway."""
        labels = f"glm-operator.io/deployment={self.name},app.kubernetes.io/component={role}"
        return self.target.items("pods", self.namespace, labels)

    def limits(self, resource: str) -> list[str | None]:
        """Return the limit of each pod."""
        return [pod["spec"]["containers"][0]["resources"].get("limits", {}).get(resource) for pod in self.pods()]

    def is_leaving(self, pod: str) -> bool:
        found = self.target.read("pods", pod, self.namespace)
        return "deletionTimestamp" in found["metadata"]

    def pod_uids(self) -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.pods()}

    def owned(self) -> list[str]:
        """Return kind/name of everything in the namespace that the operator made for this deployment."""
        kinds = (
            "statefulsets,services,serviceaccounts,controllerrevisions.apps,pods,deployments,configmaps,roles,rolebindings,"
            "poddisruptionbudgets"
        )
        found = self.target.items(kinds, self.namespace, f"glm-operator.io/deployment={self.name}")
        return [f"{item['kind']}/{item['metadata']['name']}" for item in found]

    @contextlib.contextmanager
    def client(self) -> Iterator[openai.OpenAI]:
        # A proxy knows nothing of ClusterIPs and forwarded ports. Each request has a connection of its own: a Service
        # chooses a pod for a connection.
        direct = openai.DefaultHttpxClient(
            trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        with (
            self.target.base_url(self.name, self.namespace) as url,
            openai.OpenAI(base_url=url, api_key=self.key, max_retries=0, timeout=TIMEOUT, http_client=direct) as client,
        ):
            yield client

    def answer(self, question: str = "What is 12+30?", **extra: object) -> tuple[str, str]:
        """Return thinking and answer of one streamed chat through the Service."""
        with self.client() as client:
            return ask(client, question, **extra)

    def answers_right(self) -> bool:
        thinking, content = self.answer()
        return bool(thinking.strip()) and "42" in content

    def wait_answers(self) -> None:
        """Wait for the right answer: a Service takes a moment to know a pod that has become ready."""
        wait_for(f"the right answer of {self.name}", self.answers_right, timeout_s=60)

    def signal_rank(self, pod: str, rank: int, signal: int) -> None:
        """Send a signal to one rank, from inside its container."""
        self.run(pod, "python3", "-c", KILL_RANK, str(rank), str(signal))

    def run(self, pod: str, *command: str) -> str:
        """Run a command inside a worker's container; return what it printed."""
        return self.target.kubectl("exec", pod, "-n", self.namespace, "-c", WORKER_CONTAINER, "--", *command)

    def group(self, pod: str) -> dict[str, Any]:
        """Return what the supervisor of a leading pod says of its group."""
        found: dict[str, Any] = json.loads(self._from_management_port(pod, "group"))
        return found

    def state(self, pod: str) -> dict[str, Any]:
        """Return what a pod of the gateway says of itself."""
        found: dict[str, Any] = json.loads(self._from_management_port(pod, "state"))
        return found

    def metric(self, pod: str, name: str) -> float:
        """Return the sum of a metric's series on one pod; LookupError when it has none."""
        series = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self._from_management_port(pod, "metrics"), re.MULTILINE)
        if not series:
            raise LookupError(f"{pod} has no metric {name}")
        return sum(map(float, series))

    def _from_management_port(self, pod: str, path: str) -> str:
        return self.target.api.text(path_of("pods", self.namespace, f"{pod}:9090", "proxy", path))


def ask(client: openai.OpenAI, question: str = "What is 12+30?", **extra: object) -> tuple[str, str]:
    """Return thinking and answer of one streamed chat. extra: fields of ours."""
    thinking, content = "", ""
    messages: Any = [{"role": "user", "content": question}]
    for chunk in client.chat.completions.create(model="glm-nano", messages=messages, stream=True, extra_body=extra):
        delta = chunk.choices[0].delta
        thinking += getattr(delta, "reasoning_content", None) or ""
        content += delta.content or ""
    return thinking, content


def condition_of(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition that speaks of the present spec; LookupError until there is one."""
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["observedGeneration"] == found["metadata"]["generation"]:
            return dict(condition)
    raise LookupError(f"no condition {kind} of generation {found['metadata']['generation']} yet")
