"""What may not be on a given cluster before the stories run there."""

import pytest

from e2e.footprint import NAMESPACES, in_the_way


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
