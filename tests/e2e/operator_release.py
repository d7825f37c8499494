"""The operator as installed by Helm, and what its log says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from e2e.api import path_of
from e2e.deployments import wait_for
from e2e.refusals import is_fault, refusals, since
from e2e.target import CHART, Target
from e2e.usage import unused
from glm_cluster import Cluster
from glm_operator.cluster.rbac import RULES


def is_rolled_out(deployment: dict[str, Any]) -> bool:
    """Whether a Deployment has all its pods, of its newest spec and available, and no others; as kubectl sees it."""
    wanted, status = deployment["spec"]["replicas"], deployment["status"]
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False
    return all(status.get(kind, 0) == wanted for kind in ("replicas", "updatedReplicas", "availableReplicas"))


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
        return self._deployments()[0]

    def _deployments(self) -> list[dict[str, Any]]:
        return self.target.items("deployments", self.namespace, f"app.kubernetes.io/instance={self.name}")

    def pods(self) -> list[str]:
        """Return the operator's pods but for those on their way out."""
        return [pod["metadata"]["name"] for pod in self._staying_pods()]

    def delete_pod(self) -> None:
        """Delete the operator's pod by force: the next one starts while the old one may be at work still."""
        self.assert_clean_logs()
        for pod in self.pods():
            self.target.kubectl(
                "delete", "pod", pod, "-n", self.namespace, "--wait=false", "--grace-period=0", "--force"
            )

    def scale(self, replicas: int) -> None:
        self.assert_clean_logs()
        self.target.kubectl("scale", f"deployment/{self.deployment}", f"--replicas={replicas}", "-n", self.namespace)
        self._wait_rolled_out()
        wait_for("the operator scaled", lambda: len(self._all_pods()) == replicas, timeout_s=60)

    def assert_clean_logs(self) -> None:
        """Fail when an operator died, or its log has an error, traceback or refused call that no story asked for."""
        self._wait_rolled_out()
        for each in self._staying_pods():
            pod = each["metadata"]["name"]
            began = self.target.began.isoformat()  # a cluster that was up before may keep an older operator's pod
            for status in each["status"]["containerStatuses"]:
                ended = status["lastState"].get("terminated")
                finished_at = ended and ended["finishedAt"]  # null: lost with its node, which is not this run's
                is_of_now = finished_at and datetime.fromisoformat(finished_at) >= self.target.began
                assert not is_of_now, f"{pod} was restarted: {ended}"
            log = self.target.api.text(path_of("pods", self.namespace, pod, "log"), sinceTime=began)
            bad = [line for line in log.splitlines() if is_fault(line)]
            assert not bad, f"the log of {pod} has:\n" + "\n".join(bad[:20])

    def _staying_pods(self) -> list[dict[str, Any]]:
        return [pod for pod in self._all_pods() if "deletionTimestamp" not in pod["metadata"]]

    def _all_pods(self) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=operator"
        return self.target.items("pods", self.namespace, selector)

    def _wait_rolled_out(self) -> None:
        """Wait until the pods of the present Deployment run; there is none after an uninstall."""
        for found in self._deployments():
            if is_rolled_out(found):
                continue
            rollout = f"deployment/{found['metadata']['name']}"
            self.target.kubectl("rollout", "status", rollout, "-n", self.namespace, "--timeout=120s", timeout_s=130)

    def assert_nothing_refused(self) -> None:
        """Fail when the API server refused the operator anything that no story asked for.

        Our cluster's audit log has every request of this run; of a given one there is only the log of the present pod.
        """
        if self.target.cluster is None:
            self.assert_clean_logs()
            return
        bad = refusals(self._requests(self.target.cluster))
        assert not bad, f"{self.user} was refused:\n" + "\n".join(bad[:20])

    def assert_nothing_unused(self, cluster: Cluster) -> None:
        """Fail when the chart grants a verb that no request of this run needed. Of our cluster, after all stories."""
        idle = unused(RULES, self._requests(cluster))
        assert not idle, f"{self.user} may, and never did: " + ", ".join(idle)

    def _requests(self, cluster: Cluster) -> list[Mapping[str, Any]]:
        requests = since(cluster.audit_events(self.user), self.target.began)
        assert requests, f"the audit log has no request of {self.user}"
        return requests
