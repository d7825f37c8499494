"""What may not be on a given cluster before the stories run there."""

import json
from pathlib import Path

import httpx
import pytest

from e2e.api import Api
from e2e.footprint import NAMESPACES, in_the_way
from e2e.target import Target


def test_nothing_is_in_the_way_on_a_cluster_that_never_had_us() -> None:
    assert in_the_way(["default", "kube-system", "models-of-others"], [], []) is None


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_that_would_be_deleted_may_not_be_there(namespace: str) -> None:
    reason = in_the_way(["default", namespace], [], [])
    assert reason is not None
    assert f"has the namespace {namespace} already" in reason


def test_an_installed_operator_is_named() -> None:
    assert "has the operator installed: prod/glm." in str(in_the_way(["default", "prod"], ["prod/glm"], ["a/b"]))


def test_deployments_without_an_operator_are_not_taken_over() -> None:
    assert "has GLMDeployments: a/one, a/two." in str(in_the_way(["a"], [], ["a/two", "a/one"]))


@pytest.mark.parametrize("has_crd", [True, False])
def test_what_a_cluster_has_is_read_from_kubectl_and_helm(tmp_path: Path, has_crd: bool) -> None:
    namespaces = {"items": [{"metadata": {"name": "default"}}]}
    deployments = {"items": [{"metadata": {"namespace": "a", "name": "one"}}]}
    releases = [
        {"name": "mine", "namespace": "prod", "chart": "glm-operator-0.1.0"},
        {"name": "other", "namespace": "prod", "chart": "glm-operator-dashboard-1.0.0"},
    ]
    glmd = f"echo '{json.dumps(deployments)}'" if has_crd else "exit 1"  # kubectl knows no such resource then
    answers = f"""case "$2" in
        namespaces) echo '{json.dumps(namespaces)}';;
        crd) {"echo the CRD" if has_crd else "true"};;
        glmd) {glmd};;
        *) echo '{json.dumps(releases)}';;
    esac"""
    for program in ("kubectl", "helm"):
        (tmp_path / program).write_text(f"#!/bin/sh\n{answers}\n")
        (tmp_path / program).chmod(0o755)
    api = Api(httpx.Client())  # asks nothing
    target = Target({"PATH": str(tmp_path)}, operator_image="o:1", worker_image="w:1", cluster=None, api=api)
    assert target.found() == (["default"], ["prod/mine"], ["a/one"] if has_crd else [])
