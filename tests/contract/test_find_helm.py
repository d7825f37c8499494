"""Which helm the contract tests of the chart use."""

from pathlib import Path

import pytest

from contract.helm import find_helm
from glm_cluster.paths import Paths
from glm_cluster.programs import HELM, Programs


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs of `make cluster` lie, with a helm of another version in it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("GLM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "glm-operator"
    a_helm(cache / "programs/helm-9.9.9-ffffffff")
    return cache


def a_helm(folder: Path) -> str:
    folder.mkdir(parents=True)
    helm = folder / "helm"
    helm.touch(0o755)
    return str(helm)


def test_a_helm_of_another_version_is_not_used(cache: Path) -> None:
    assert find_helm() is None


def test_the_helm_of_the_present_version_is_found_where_the_cluster_keeps_it(cache: Path) -> None:
    helm = a_helm(Programs(Paths(cache=cache, state=cache)).folder(HELM))
    assert find_helm() == helm


def test_a_helm_on_the_path_comes_first(cache: Path, tmp_path: Path) -> None:
    a_helm(Programs(Paths(cache=cache, state=cache)).folder(HELM))
    first = a_helm(tmp_path / "bin")
    assert find_helm() == first
