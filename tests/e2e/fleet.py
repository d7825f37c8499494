"""Many GLMDeployments at once, on nodes that run nothing (kwok), and what they cost the API server."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from e2e import audit, fake_workers
from e2e.deployments import condition_of, nano, wait_for
from e2e.target import Target
from glm_cluster import Cluster
from glm_cluster.addresses import NODE_IP
from glm_cluster.kwok import NODE_SELECTOR, TOLERATIONS, listed
from glm_cluster.processes import Processes
from glm_operator.names import DEPLOYMENT_LABEL, MANAGEMENT_PORT

LABELS = {"e2e": "fleet"}
SELECTOR = "e2e=fleet"
POLL_S = 1.0
"""Between two looks at all of them: one is 1.4 MB for 300, and the CPU is the operator's, too."""

QUIET = timedelta(seconds=3)
"""Without a write of the operator for so long, nothing of a change is on its way any more."""


@dataclass(frozen=True)
class Fleet:
    """Deployments of glm-nano, one pod with one rank each. Our cluster's only: a given one has no audit log."""

    target: Target
    cluster: Cluster
    namespace: str
    size: int

    @property
    def names(self) -> list[str]:
        return [f"fleet-{number:03}" for number in range(self.size)]

    def apply(self) -> None:
        manifests = [self._manifest(name) for name in self.names]
        self.target.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed(manifests)), timeout_s=300)

    def _manifest(self, name: str) -> dict[str, Any]:
        manifest = nano(
            name, self.namespace, ranks_per_pod=1, ranks=1, nodeSelector=NODE_SELECTOR, tolerations=TOLERATIONS
        )
        manifest["metadata"]["labels"] = LABELS
        manifest["spec"]["gateway"] = {"enabled": False}  # as many pods again, that no story here is about
        return manifest

    def wait_settled(self, user: str, *, timeout_s: float) -> None:
        """Wait until all are ready, nothing is left to do for any, and the operator has written the last of it."""
        # Not `kubectl wait`: it asks for one after the other, 58 s for 300 that are ready.
        wait_for(f"{self.size} deployments settled", self._are_settled, timeout_s=timeout_s, poll_s=POLL_S)
        wait_for("the operator's last write", lambda: self._is_quiet(user), timeout_s=60)

    def _are_settled(self) -> bool:
        found = self.target.items("glmdeployments", self.namespace, SELECTOR)
        left = [item["metadata"]["name"] for item in found if not _is_settled(item)]
        assert len(found) == self.size, f"there are {len(found)}"
        assert not left, f"not settled: {len(left)}, the first {left[0]}"
        return True

    def _is_quiet(self, user: str) -> bool:
        late = audit.requests(self.cluster.audit_events(user, since := datetime.now(UTC) - QUIET), since)
        writes = [audit.line(entry) for entry in late if audit.is_write(entry)]
        assert not writes, f"{len(writes)} writes, the last: {writes[-1]}"
        return True

    def delete(self) -> None:
        """Delete all, and wait for their pods to go: their nodes go next."""
        self.target.kubectl("delete", "glmd", "-l", SELECTOR, "-n", self.namespace, "--wait=false", timeout_s=300)
        wait_for("the fleet gone", lambda: not self._left(), timeout_s=300, poll_s=POLL_S)

    def _left(self) -> list[str]:
        found = self.target.items("glmdeployments", self.namespace, SELECTOR) + self.target.items(
            "pods", self.namespace
        )
        return [name for item in found if (name := item["metadata"]["name"]).startswith("fleet-")]

    def pod_uids(self) -> dict[str, str]:
        """Return the pods of the fleet."""
        found = self.target.items("pods", self.namespace)
        metadata = [item["metadata"] for item in found if item["metadata"]["name"].startswith("fleet-")]
        return {each["name"]: each["uid"] for each in metadata}

    def down(self) -> list[str]:
        """Return the deployments that have no pod that is ready and stays."""
        up = set()
        for pod in self.target.items("pods", self.namespace):
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                up.add(pod["metadata"]["labels"].get(DEPLOYMENT_LABEL))
        return [name for name in self.names if name not in up]

    def reasons(self, condition: str) -> set[str]:
        """Return the reasons that the deployments have for a condition."""
        found = self.target.items("glmdeployments", self.namespace, SELECTOR)
        return {condition_of(each, condition)["reason"] for each in found}

    def worker_image(self) -> str:
        """Return the image of the fleet's pods."""
        name = f"{self.names[0]}-g0"
        template = self.target.get("statefulset", name, "-n", self.namespace)["spec"]["template"]
        return str(template["spec"]["containers"][0]["image"])

    def wait_planned(self, name: str, *, timeout_s: float) -> None:
        """Wait until the operator's status speaks of the newest spec of one."""

        def is_planned() -> bool:
            found = self.target.read("glmdeployments", name, self.namespace)
            return bool(condition_of(found, "Planned")["status"] == "True")

        wait_for(f"the edit of {name} accepted", is_planned, timeout_s=timeout_s)


def _is_settled(found: dict[str, Any]) -> bool:
    try:
        is_ready, progressing = condition_of(found, "Ready"), condition_of(found, "Progressing")
    except LookupError:
        return False
    return (is_ready["status"], progressing["status"]) == ("True", "False")


@dataclass(frozen=True)
class RequestRate:
    """Requests a minute, and the first of those that are no watch."""

    watches: float
    others: float
    examples: tuple[str, ...]


def requests_per_minute(target: Target, user: str, seconds: float) -> RequestRate:
    """Return what an account asks the API server of our cluster for in a window that begins now."""
    assert target.cluster is not None, "a given cluster's audit log is not at hand"
    began = datetime.now(UTC)
    ended = began + timedelta(seconds=seconds)
    wait_for("the end of the window", lambda: datetime.now(UTC) >= ended, timeout_s=seconds + 30)
    found = audit.split(target.cluster.audit_events(user, began), began, ended)
    others = [entry for entry in found.others if not _is_look_at_certificates(entry)]
    return RequestRate(
        watches=len(found.watches) * 60 / seconds,
        others=len(others) * 60 / seconds,
        examples=tuple(audit.line(entry) for entry in others[:20]),
    )


def _is_look_at_certificates(entry: audit.Entry) -> bool:
    """Tell of the three Secrets of a deployment with a gateway, which no watch tells of: read every ten minutes. The
    fleet has no gateways, deployments of other stories have.
    """
    return bool(entry["verb"] == "get" and entry.get("objectRef", {}).get("resource") == "secrets")


@dataclass(frozen=True)
class Editor:
    """One who edits under an account of their own: the audit log has service accounts, and no people."""

    target: Target
    cluster: Cluster
    namespace: str
    token: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:editor"

    def set_max_num_seqs(self, deployment: str, value: int) -> datetime:
        """Edit one; return when that reached the API server."""
        began = datetime.now(UTC)
        change = json.dumps({"spec": {"engine": {"limits": {"maxNumSeqs": value}}}})
        self.target.kubectl(
            "--kubeconfig=/dev/null", f"--server={self.cluster.api_server}", f"--token={self.token}",
            f"--certificate-authority={self.cluster.paths.pki}/ca.crt",
            "patch", "glmd", deployment, "-n", self.namespace, "--type=merge", "-p", change,
        )  # fmt: skip
        edit = audit.first_write(self.cluster.audit_events(self.user, began), self.namespace, deployment, began)
        assert edit is not None, f"the audit log has no edit of {deployment} by {self.user}"
        return audit.received(edit)


@contextlib.contextmanager
def editor(target: Target, cluster: Cluster, namespace: str) -> Iterator[Editor]:
    """Yield one who may edit in a namespace."""
    meta = {"name": "editor", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", **meta}
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [subject],
        },
    ]
    target.apply(*made)
    try:
        token = target.kubectl("create", "token", "editor", "-n", namespace, "--duration=2h").strip()
        yield Editor(target, cluster, namespace, token)
    finally:
        target.kubectl("delete", "rolebinding,serviceaccount", "editor", "-n", namespace)


@contextlib.contextmanager
def answering_workers(cluster: Cluster) -> Iterator[None]:
    """Let every pod of a fake node answer at its management port, as a program of the cluster."""
    processes, name = Processes(cluster.paths.pids, cluster.paths.logs), "fake-workers"
    processes.stop(name)  # that of a story that was killed
    processes.start(name, sys.executable, Path(fake_workers.__file__), str(MANAGEMENT_PORT))
    try:
        url = f"http://{NODE_IP}:{MANAGEMENT_PORT}/group"
        wait_for("an answer of the fake workers", lambda: httpx.get(url, trust_env=False).is_success, timeout_s=30)
        yield
    finally:
        processes.stop(name)
