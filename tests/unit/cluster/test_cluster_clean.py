"""`make cluster-clean`: what goes, and when it is refused."""

from pathlib import Path

import pytest

from glm_cluster import network
from glm_cluster.addresses import NETNS
from glm_cluster.cleanup import clean_cache
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths

OF_OURS = (
    "programs/helm-1/helm",
    "containerd/io/x",
    "registry/x",
    "buildah/overlay/x",
    "logs-of-failed-cluster/etcd.log",
)
FILES_OF_OURS = ("packages-worker", "build-worker.log", "debootstrap.log")
OF_OTHERS = ("thesis/chapter-1", "packages/x", "cluster.lock")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A machine without a cluster, with a cache in a folder that has other things in it."""
    monkeypatch.setattr(network, "NETNS_FOLDER", tmp_path / "netns")
    paths = Paths(cache=tmp_path / "cache", state=tmp_path / "state")
    for name in (*OF_OURS, *FILES_OF_OURS, *OF_OTHERS):
        (paths.cache / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.cache / name).touch()
    return paths


def left(paths: Paths) -> set[str]:
    return {str(path.relative_to(paths.cache)) for path in paths.cache.rglob("*") if path.is_file()}


def test_what_the_cluster_cached_goes_and_nothing_else_of_its_folder(paths: Paths) -> None:
    clean_cache(paths)
    assert left(paths) == {*OF_OTHERS}
    clean_cache(paths)


@pytest.mark.parametrize("trace", ["state", f"netns/{NETNS}"])
def test_a_cluster_or_half_of_one_keeps_its_cache(paths: Paths, tmp_path: Path, trace: str) -> None:
    (tmp_path / trace).mkdir(parents=True)
    with pytest.raises(ClusterError, match="run `make cluster-down` first"):
        clean_cache(paths)
    assert left(paths) == {*OF_OURS, *FILES_OF_OURS, *OF_OTHERS}
