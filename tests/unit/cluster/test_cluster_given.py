"""E2E_KUBECONFIG and what belongs to it."""

from pathlib import Path

import pytest

from glm_cluster.errors import ClusterError
from glm_cluster.given import given_cluster


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment that names a cluster with all that the stories need."""
    for program in ("kubectl", "helm"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "config").touch()
    return {
        "PATH": str(tmp_path),
        "E2E_KUBECONFIG": str(tmp_path / "config"),
        "E2E_OPERATOR_IMAGE": "registry.example:5000/glm-operator:0.1.0",
        "E2E_WORKER_IMAGE": f"registry.example/glm-worker@sha256:{'a' * 64}",
    }


def test_a_cluster_is_given_by_its_kubeconfig_and_two_images(environ: dict[str, str]) -> None:
    given = given_cluster(environ)
    assert given is not None
    assert (str(given.kubeconfig), given.operator_image, given.worker_image) == (
        environ["E2E_KUBECONFIG"],
        environ["E2E_OPERATOR_IMAGE"],
        environ["E2E_WORKER_IMAGE"],
    )


def test_without_a_kubeconfig_none_is_given(environ: dict[str, str]) -> None:
    assert given_cluster(environ | {"E2E_KUBECONFIG": ""}) is None
    assert given_cluster({}) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"E2E_OPERATOR_IMAGE": ""}, r"^E2E_OPERATOR_IMAGE is not set; .* --target operator\) .*REPOSITORY:TAG"),
        ({"E2E_WORKER_IMAGE": ""}, r"^E2E_WORKER_IMAGE is not set; .* --target worker\)"),
        ({"E2E_WORKER_IMAGE": "registry.example:5000/w"}, r"^E2E_WORKER_IMAGE is 'registry\.example:5000/w'; "),
        ({"E2E_WORKER_IMAGE": "w@sha256:12"}, r"^E2E_WORKER_IMAGE is 'w@sha256:12'; "),
        ({"E2E_KUBECONFIG": "/no/such/file"}, r"^E2E_KUBECONFIG is /no/such/file, which is no file"),
        ({"PATH": "/nowhere"}, r"there is no `kubectl` on the PATH"),
    ],
)
def test_what_is_missing_is_named_with_what_it_should_hold(
    environ: dict[str, str], change: dict[str, str], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        given_cluster(environ | change)
