"""The running cluster as tests and people use it: where it is, and kubectl and helm on it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from glm_cluster import web
from glm_cluster.addresses import API_SERVER, GPU_RESOURCE, NO_PROXY, NODE_GPUS, NODE_IP, NODE_NAME, REGISTRY
from glm_cluster.commands import PROXY_VARIABLES, run
from glm_cluster.containers import Containerd
from glm_cluster.errors import ClusterError
from glm_cluster.images import Images, build_and_push
from glm_cluster.locking import locked
from glm_cluster.paths import Paths, find_paths
from glm_cluster.preload import preload
from glm_cluster.processes import Processes
from glm_cluster.programs import KUBERNETES_TOOL, Programs
from glm_cluster.progress import step
from glm_cluster.waiting import GaveUp, wait_for

EVER = datetime.fromtimestamp(0, UTC)
RECEIVED = re.compile(r'"requestReceivedTimestamp":"([^"]+)"')

BUSY_S = 30.0
"""A living API server that does not answer this long is broken; on a busy machine one answer may take seconds."""


@dataclass(frozen=True)
class Cluster:
    """One cluster on this machine. Services and pods can be reached by their IPs from here."""

    paths: Paths

    api_server: ClassVar[str] = API_SERVER
    registry: ClassVar[str] = REGISTRY
    node_name: ClassVar[str] = NODE_NAME
    node_ip: ClassVar[str] = NODE_IP
    node_gpus: ClassVar[int] = NODE_GPUS
    gpu_resource: ClassVar[str] = GPU_RESOURCE

    @classmethod
    def running(cls, environ: Mapping[str, str] = os.environ) -> "Cluster":
        """Return the cluster that is up, or raise ClusterError with how to get one."""
        cluster = cls(find_paths(environ))
        if not cluster.is_whole():
            raise ClusterError("no cluster is up on this machine: run `make cluster`")
        return cluster

    @property
    def kubernetes_version(self) -> str:
        return KUBERNETES_TOOL.version

    @property
    def kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON event a line for every request of a service account outside kube-system."""
        return self.paths.audit_log

    def is_whole(self) -> bool:
        """Whether `up` got to its end, and everything it started still runs and answers."""
        if not self.paths.ready_mark.exists():
            return False
        processes = Processes(self.paths.pids, self.paths.logs)

        def is_answering() -> bool:
            if not all(processes.pid(name) for name in processes.names()):
                raise GaveUp("one of its programs has ended")
            return self.is_api_ready()

        try:
            return wait_for("an answer of the API server", is_answering, timeout_s=BUSY_S)
        except ClusterError:
            return False

    def is_api_ready(self) -> bool:
        """Whether the API server says that it is ready; ClusterError with why when it does not."""
        return web.get(f"{API_SERVER}/readyz", authority=self.paths.pki / "ca.crt") == b"ok"

    def environment(self) -> dict[str, str]:
        """Return the environment in which kubectl, helm and clients in Python use this cluster."""
        without_proxy = {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES}
        return {**without_proxy, **self.exports()}

    def exports(self) -> dict[str, str]:
        """Return the variables that make a shell use this cluster."""
        programs = Programs(self.paths)
        folders = [str(programs[name].parent) for name in ("kubectl", "helm")]
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": ":".join([*folders, os.environ.get("PATH", os.defpath)]),
            "NO_PROXY": NO_PROXY,
            "no_proxy": NO_PROXY,
            "HELM_CACHE_HOME": str(self.paths.state / "helm/cache"),
            "HELM_CONFIG_HOME": str(self.paths.state / "helm/config"),
            "HELM_DATA_HOME": str(self.paths.state / "helm/data"),
        }

    def kubectl(self, *args: str | Path, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Return what kubectl prints; raise CommandFailed with what it says when it fails."""
        kubectl = Programs(self.paths)["kubectl"]
        return run(kubectl, *args, stdin=stdin, env=self.environment(), timeout_s=timeout_s)

    def get(self, *args: str) -> dict[str, Any]:
        """Return an object or a list of them, as `kubectl get ... -o json` gives it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return found

    def helm(self, *args: str | Path, timeout_s: float = 300.0) -> str:
        return run(Programs(self.paths)["helm"], *args, env=self.environment(), timeout_s=timeout_s)

    def push_images(self) -> Images:
        """Build the operator's and the worker's image from the checkout, push them, and pull them onto the node."""
        with locked(self.paths):
            images = build_and_push(self.paths)
            on_node = Containerd(self.paths).images()
            references = [image.reference for image in (images.operator, images.worker)]
            if missing := [reference for reference in references if reference not in on_node]:
                with step("pull onto the node"):
                    preload(self.kubectl, missing)
        return images

    def audit_events(self, user: str = "", since: datetime = EVER) -> list[dict[str, Any]]:
        """Return the audited requests, of one user (system:serviceaccount:NAMESPACE:NAME) or of all.

        since: when the first of them came. Asked often, it spares the reading of a log of hundreds of megabytes.
        """
        files = sorted(self.audit_log.parent.glob("audit*.jsonl"))  # at 100 MB the API server goes on in a new one
        text = "".join(file.read_text() for file in files if file.stat().st_mtime >= since.timestamp())
        whole_lines = text.rpartition("\n")[0].splitlines()  # the API server may be writing the last one
        begin = since.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")  # as it writes times
        events: list[dict[str, Any]] = [
            json.loads(line) for line in whole_lines if (at := RECEIVED.search(line)) and at[1] >= begin
        ]
        return [event for event in events if user in ("", event["user"]["username"])]
