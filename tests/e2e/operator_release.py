"""The operator as installed by Helm, and what its log says."""

import re
from dataclasses import dataclass
from typing import Any

from e2e.deployments import wait_for
from e2e.refusals import ASKED_FOR, refusals, since
from e2e.target import CHART, Target

FORBIDDEN_IN_LOG = re.compile(r"Traceback|(?<![,.\d])403\b|[Ff]orbidden|\bERROR\b|\bCRITICAL\b")
"""The 403 of a refused call, not the milliseconds of a time."""


@dataclass(frozen=True)
class Release:
    """One Helm release of the operator in a namespace of its own."""

    target: Target
    name: str
    namespace: str

    def install(self, *flags: str) -> None:
        """Install or upgrade, and wait until the operator runs."""
        self.target.helm(
            "upgrade", "--install", self.name, CHART, "-n", self.namespace, *self.target.image_values(), *flags,
            "--wait", "--timeout", "3m",
        )  # fmt: skip

    def uninstall(self) -> None:
        self.target.helm("uninstall", self.name, "-n", self.namespace, "--wait")

    @property
    def deployment(self) -> str:
        return str(self._deployment()["metadata"]["name"])

    @property
    def user(self) -> str:
        """Name under which the operator's requests reach the API server."""
        account = self._deployment()["spec"]["template"]["spec"]["serviceAccountName"]
        return f"system:serviceaccount:{self.namespace}:{account}"

    def _deployment(self) -> dict[str, Any]:
        return self.target.items("deployments", self.namespace, f"app.kubernetes.io/instance={self.name}")[0]

    def pods(self) -> list[str]:
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=operator"
        return [pod["metadata"]["name"] for pod in self.target.items("pods", self.namespace, selector)]

    def delete_pod(self) -> None:
        """Delete the operator's pod without waiting: what a node failure looks like."""
        for pod in self.pods():
            self.assert_clean_log(pod)
            self.target.kubectl(
                "delete", "pod", pod, "-n", self.namespace, "--wait=false", "--grace-period=0", "--force"
            )

    def scale(self, replicas: int) -> None:
        for pod in self.pods():
            self.assert_clean_log(pod)
        self.target.kubectl("scale", f"deployment/{self.deployment}", f"--replicas={replicas}", "-n", self.namespace)
        wait_for("the operator scaled", lambda: len(self.pods()) == replicas, timeout_s=60)
        if replicas:
            rollout = f"deployment/{self.deployment}"
            self.target.kubectl("rollout", "status", rollout, "-n", self.namespace, "--timeout=120s", timeout_s=130)

    def assert_clean_log(self, pod: str) -> None:
        """Fail when this operator pod's log has an error, a traceback or a refused call that no story asked for."""
        log = self.target.kubectl("logs", pod, "-n", self.namespace, "--tail=-1")
        bad = [line for line in log.splitlines() if FORBIDDEN_IN_LOG.search(line) and not ASKED_FOR.search(line)]
        assert not bad, f"the log of {pod} has:\n" + "\n".join(bad[:20])

    def assert_nothing_refused(self) -> None:
        """Fail when the API server refused the operator anything that no story asked for.

        Our cluster's audit log has every request of this run; of a given one there is only the log of the present pod.
        """
        cluster = self.target.cluster
        if cluster is None:
            for pod in self.pods():
                self.assert_clean_log(pod)
            return
        requests = since(cluster.audit_events(self.user), self.target.began)
        assert requests, f"the audit log has no request of {self.user}"
        bad = refusals(requests)
        assert not bad, f"{self.user} was refused:\n" + "\n".join(bad[:20])
