"""Where the cluster keeps things: a cache that outlives it, and a state folder that `down` removes.

Neither is inside the checkout. The cache holds what is slow to make (programs, image layers); deleting it costs time
and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
SOURCES = Path(__file__).resolve().parents[1] / "programs"


@dataclass(frozen=True)
class Paths:
    """Every file and folder outside the checkout that this package makes."""

    cache: Path
    state: Path

    # The cache
    @property
    def programs(self) -> Path:
        return self.cache / "programs"

    @property
    def containerd_root(self) -> Path:
        """containerd's image store: an image that was pulled once is there at once in the next cluster."""
        return self.cache / "containerd"

    @property
    def registry_storage(self) -> Path:
        return self.cache / "registry"

    @property
    def buildah_root(self) -> Path:
        return self.cache / "buildah"

    @property
    def lock(self) -> Path:
        return self.cache / "cluster.lock"

    @property
    def kept_logs(self) -> Path:
        """What the programs of the last cluster said that `make e2e` could not bring up."""
        return self.cache / "logs-of-failed-cluster"

    def cached(self) -> list[Path]:
        """Return what there is in the cache but for the lock. Only ours: GLM_CACHE_DIR may name anybody's folder."""
        folders = (self.programs, self.containerd_root, self.registry_storage, self.buildah_root, self.kept_logs)
        patterns = ("packages-*", "build-*.log", "debootstrap.log")
        files = [file for pattern in patterns for file in self.cache.glob(pattern)]
        return [*(folder for folder in folders if folder.exists()), *sorted(files)]

    # The state
    @property
    def pids(self) -> Path:
        return self.state / "pids"

    @property
    def guests(self) -> Path:
        """Pid files and locks of programs that one test needs; the cluster is whole without them."""
        return self.state / "guests"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def config(self) -> Path:
        """Configuration files that we write for the programs."""
        return self.state / "config"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def kubeconfigs(self) -> Path:
        return self.state / "kubeconfigs"

    @property
    def kubeconfig(self) -> Path:
        """For people and tests: cluster-admin."""
        return self.kubeconfigs / "admin.conf"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.jsonl"

    @property
    def etcd_data(self) -> Path:
        return self.state / "etcd"

    @property
    def kubelet_root(self) -> Path:
        return self.state / "kubelet"

    @property
    def containerd_state(self) -> Path:
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.containerd_state / "containerd.sock"

    @property
    def buildah_run(self) -> Path:
        return self.state / "buildah"

    @property
    def ready_mark(self) -> Path:
        """Exists once `up` has got to its end."""
        return self.state / "ready.json"


def find_paths(environ: Mapping[str, str]) -> Paths:
    """Return the folders: GLM_CACHE_DIR and GLM_STATE_DIR, else where the XDG base directories say."""
    home = Path(environ.get("HOME", "/root"))
    cache = environ.get("GLM_CACHE_DIR") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "glm-operator"
    state = (
        environ.get("GLM_STATE_DIR") or Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "glm-operator"
    )
    return Paths(cache=Path(cache).absolute(), state=Path(state).absolute() / "cluster")
