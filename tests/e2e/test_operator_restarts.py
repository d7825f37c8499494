"""Stories of an operator that dies in the middle: the end state is the same."""

from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release


def test_an_operator_killed_while_scaling_ends_in_the_same_state(shared: Deployed, release: Release) -> None:
    shared.scale(2)
    release.delete_pod()
    shared.wait_settled("2/2", timeout_s=240)
    shared.scale(1)
    release.delete_pod()
    shared.wait_settled("1/1", timeout_s=240)
    wait_for("one pod left", lambda: len(shared.pods()) == 1, timeout_s=60)
    shared.wait_answers()


def test_an_operator_killed_in_an_edit_ends_in_the_same_state(shared: Deployed, release: Release) -> None:
    before = shared.status()["revision"]
    shared.set_max_num_seqs(9)
    release.delete_pod()
    wait_for("another revision", lambda: shared.status()["revision"] != before, timeout_s=120)
    shared.wait_settled("1/1", timeout_s=240)
    shared.set_max_num_seqs(None)
    release.delete_pod()
    wait_for("the first revision", lambda: shared.status()["revision"] == before, timeout_s=120)
    shared.wait_settled("1/1", timeout_s=240)
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


def test_deleting_removes_everything_while_the_operator_is_down(release: Release) -> None:
    deployed = Deployed(release.target, "short-lived", MODEL_NAMESPACE)
    release.target.apply(nano("short-lived", MODEL_NAMESPACE))
    deployed.wait_ready()
    release.scale(0)
    try:
        deployed.delete()
        wait_for("everything gone", lambda: not deployed.owned(), timeout_s=60)
    finally:
        release.scale(1)
