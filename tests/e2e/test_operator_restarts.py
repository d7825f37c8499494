"""Stories of an operator that dies in the middle: the end state is the same."""

from typing import Any

import pytest

from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, wait_for
from e2e.operator_release import Release

pytestmark = pytest.mark.alone


def test_an_operator_killed_while_scaling_ends_in_the_same_state(shared: Deployed, release: Release) -> None:
    shared.scale(2)
    release.delete_pod()
    shared.wait_settled("2/2", timeout_s=240)
    shared.scale(1)
    release.delete_pod()
    shared.wait_settled("1/1", timeout_s=240)
    wait_for("one pod left", lambda: len(shared.pods()) == 1, timeout_s=60)
    shared.wait_answers()


@pytest.mark.long
def test_a_field_set_and_unset_again_leaves_no_trace_though_the_operator_is_killed_in_both(
    shared: Deployed, release: Release
) -> None:
    def template() -> dict[str, Any]:
        found = shared.target.get("statefulset", "nano-g0", "-n", MODEL_NAMESPACE)
        spec: dict[str, Any] = found["spec"]["template"]
        return spec

    revision, before = shared.status()["revision"], template()
    shared.set_max_num_seqs(9)
    release.delete_pod()
    wait_for("another revision", lambda: shared.status()["revision"] != revision, timeout_s=120)
    shared.wait_settled("1/1", timeout_s=240)
    assert [_environment(pod).get("GLM_MAX_NUM_SEQS") for pod in shared.pods()] == ["9"]
    shared.set_max_num_seqs(None)
    release.delete_pod()
    wait_for("the first revision", lambda: shared.status()["revision"] == revision, timeout_s=120)
    shared.wait_settled("1/1", timeout_s=240)
    assert template() == before
    shared.wait_answers()


def test_an_operator_that_was_down_when_an_object_was_deleted_makes_it_again(
    shared: Deployed, release: Release
) -> None:
    release.scale(0)
    try:
        shared.target.kubectl("delete", "service/nano", "-n", MODEL_NAMESPACE)
    finally:
        release.scale(1)
    wait_for("the Service", lambda: "Service/nano" in shared.owned(), timeout_s=60)
    shared.wait_answers()


def _environment(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}
