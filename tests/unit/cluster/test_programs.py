from pathlib import Path

import pytest

from glm_cluster import building, programs
from glm_cluster.building import build, build_missing, parse_go_version, require_go
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths
from glm_cluster.programs import (
    COREDNS,
    HELM,
    KEDA,
    KUBERNETES_PROGRAMS,
    KUBERNETES_TOOL,
    ON_DEMAND,
    PAUSE,
    TOOLS,
    Programs,
    Tool,
    helm_version_values,
    required_go,
    required_version,
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


@pytest.mark.parametrize(
    "go_mod",
    [
        "require k8s.io/kubernetes v1.34.10\n",
        "require (\n\tk8s.io/api v0.1.0\n\tk8s.io/kubernetes v1.34.10 // indirect\n)\n",
    ],
)
def test_a_tools_version_is_the_one_in_go_mod(go_mod: str) -> None:
    assert required_version(go_mod, "k8s.io/kubernetes") == "1.34.10"


def test_a_go_mod_without_the_module_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"does not require k8s\.io/kubernetes"):
        required_version("require k8s.io/kubernetes-other v1.0.0\n", "k8s.io/kubernetes")


def test_kubernetes_programs_are_told_their_version() -> None:
    flags = KUBERNETES_TOOL.ldflags()
    assert f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_TOOL.version}" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=34" in flags


def test_helm_assumes_the_clusters_kubernetes_when_it_renders_without_one() -> None:
    assert "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34" in HELM.ldflags()


@pytest.mark.parametrize("tool", [*TOOLS, *ON_DEMAND], ids=lambda tool: tool.name)
def test_every_module_is_locked(tool: Tool) -> None:
    assert "\ntoolchain " not in (tool.source / "go.mod").read_text()
    if tool.module:
        assert f"{tool.module} v{tool.version} h1:" in (tool.source / "go.sum").read_text()


def test_a_cluster_needs_no_newer_go_than_1_24() -> None:
    assert {tool.oldest_go for tool in TOOLS} == {(1, 24)}


def test_a_go_mod_that_names_no_go_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not say which Go"):
        required_go("module ours\n")


def test_who_builds_a_tool_is_told_which_go_that_tool_needs(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.24.9\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    require_go(TOOLS)
    with pytest.raises(ClusterError, match=r"^Go 1\.26 or newer is needed .* is go1\.24\.9"):
        build_missing(paths, [KEDA])


def test_manifests_are_kept_beside_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module/crds").mkdir(parents=True)
    (tmp_path / "module/crds/a.yaml").write_text("kind: A\n")
    monkeypatch.setattr(building, "run", lambda *_, **__: f"{tmp_path}/module\n")
    tool = Tool("ours", "example.org/ours", (".",), 1, folder=tmp_path, manifests="crds/*.yaml")
    building.keep_manifests(tool, tmp_path / "kept")
    assert (tmp_path / "kept/a.yaml").read_text() == "kind: A\n"


def test_manifests_that_a_new_version_has_moved_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "ours"
    source.mkdir()
    (source / "go.mod").write_text("require example.org/ours v1.2.3\n")
    monkeypatch.setattr(building, "run", lambda *_, **__: f"{tmp_path}\n")
    tool = Tool("ours", "example.org/ours", (".",), 1, folder=tmp_path, manifests="crds/*.yaml")
    with pytest.raises(ClusterError, match=r"ours 1\.2\.3 has no crds/\*\.yaml"):
        building.keep_manifests(tool, tmp_path / "kept")


def test_whatever_goes_into_a_build_is_built_again_when_it_changes(tmp_path: Path) -> None:
    source = tmp_path / "ours"
    source.mkdir()
    tool = Tool("ours", "", (".",), 1, folder=tmp_path)
    keys = {tool.key, Tool("ours", "", (".", "./more"), 1, folder=tmp_path).key}
    for file in ("main.go", "go.mod", "go.sum"):
        for text in ("one", "another"):
            (source / file).write_text(text)
            keys.add(tool.key)
    for more in ({"manifests": "crds/*.yaml"}, {"tags": "small"}):
        keys.add(Tool("ours", "", (".",), 1, folder=tmp_path, **more).key)
    assert len(keys) == 10
    assert Tool("ours", "", (".",), 5, folder=tmp_path).key in keys  # how long it takes is no part of it


def test_helm_is_built_again_for_another_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = HELM.key
    monkeypatch.setattr(programs, "helm_version_values", lambda version, _: helm_version_values(version, "9.9.9"))
    assert HELM.key != before


def test_programs_are_found_by_name_in_a_folder_keyed_by_version(paths: Paths) -> None:
    built = Programs(paths)
    assert built["kubectl"] == paths.cache / f"programs/{KUBERNETES_TOOL.key}/kubectl"
    assert KUBERNETES_TOOL.key.startswith(f"kubernetes-{KUBERNETES_TOOL.version}-")
    assert built["coredns"].parent.name == COREDNS.key
    assert set(KUBERNETES_PROGRAMS) >= {"kubelet", "kubeadm"}


def test_what_is_in_the_cache_is_not_built_again(paths: Paths) -> None:
    built = Programs(paths)
    built.folder(PAUSE).mkdir(parents=True)
    assert [tool.name for tool in built.missing()] == ["etcd", "coredns", "helm", "kubernetes"]


def test_a_failed_build_leaves_nothing_that_looks_built(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/go.mod").write_text("module broken\n\ngo 1.24\n")
    go = tmp_path / "bin/go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho no such import\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    tool = Tool("broken", "", (".",), 1, folder=tmp_path)
    with pytest.raises(Exception, match="no such import"):
        build(tool, paths)
    assert [entry.name for entry in paths.programs.iterdir()] == [f"{tool.key}.log"]


@pytest.mark.parametrize(
    ("said", "version"),
    [("go1.24", (1, 24)), ("go1.26.8\n", (1, 26)), ("go1.19.8", (1, 19)), ("devel go1.27-abc", None)],
)
def test_gos_version_is_read(said: str, version: tuple[int, int] | None) -> None:
    assert parse_go_version(said) == version
