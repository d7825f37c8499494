"""containerd's content, by its own client: images, and the containers that a dead cluster may have left."""

from dataclasses import dataclass
from pathlib import Path

from glm_cluster.commands import cluster_environment, run
from glm_cluster.paths import Paths


@dataclass(frozen=True)
class Containerd:
    """The running containerd of the cluster, in the namespace that the kubelet uses."""

    paths: Paths

    def is_answering(self) -> bool:
        self._ctr("version")
        return True

    def images(self) -> set[str]:
        return set(self._ctr("images", "list", "--quiet").split())

    def import_image(self, archive: Path) -> None:
        self._ctr("images", "import", archive)

    def remove_containers(self) -> bool:
        """Kill and remove every task and container; return whether there was any."""
        if tasks := self._ctr("tasks", "list", "--quiet").split():
            self._ctr("tasks", "delete", "--force", *tasks)
        if containers := self._ctr("containers", "list", "--quiet").split():
            self._ctr("containers", "delete", *containers)
        return bool(tasks or containers)

    def _ctr(self, *args: str | Path) -> str:
        address = ("--address", self.paths.containerd_socket, "--namespace", "k8s.io")
        return run("ctr", *address, *args, env=cluster_environment())
