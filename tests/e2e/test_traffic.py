"""Stories of clients that chat while the cluster changes: what is in flight is finished, what is new is answered."""

import json

import pytest

from e2e.chats import QUESTION, RIGHT, asking_all_along, chats
from e2e.deployments import Deployed, wait_for
from e2e.operator_release import Release


@pytest.fixture
def two_groups(pair: Deployed) -> Deployed:
    if pair.target.cluster is None:
        pytest.skip("`kubectl port-forward` takes one pod of a Service for all chats, and this is about those of two")
    return pair


def test_a_rollout_of_two_groups_breaks_no_chat_and_answers_throughout(two_groups: Deployed) -> None:
    before = two_groups.pod_uids()
    with asking_all_along(two_groups) as asked, chats(two_groups) as in_flight:
        in_flight.open_on(*before)
        two_groups.set_max_num_seqs(34)
        in_flight.wait_any_in_flight(*before)
        wait_for("pods of the new revision", lambda: _all_replaced(two_groups, before), timeout_s=180)
        two_groups.wait_settled("2/2")
        in_flight.assert_all_right()
    assert asked.failures == []
    assert asked.num_right > 0


@pytest.mark.long
def test_a_scale_down_breaks_no_chat(two_groups: Deployed) -> None:
    leaders = [*two_groups.pod_uids()]
    with asking_all_along(two_groups) as asked, chats(two_groups) as in_flight:
        in_flight.open_on(*leaders)
        two_groups.scale(1)
        in_flight.wait_any_in_flight(*leaders)  # that with fewer tokens in flight
        in_flight.assert_all_right()
        two_groups.wait_settled("1/1")
        two_groups.scale(2)
        two_groups.wait_settled("2/2")
    assert asked.failures == []
    assert asked.num_right > 0


@pytest.mark.long
@pytest.mark.alone
def test_eight_clients_see_no_failure_while_everything_about_a_deployment_changes(
    two_groups: Deployed, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    with asking_all_along(two_groups, num_clients=8, question=QUESTION, right=RIGHT) as asked:
        for replicas in (3, 1, 3):
            two_groups.scale(replicas)
            two_groups.wait_settled(f"{replicas}/{replicas}", timeout_s=300)
        before = two_groups.pod_uids()
        two_groups.set_max_num_seqs(35)
        wait_for("pods of the new revision", lambda: _all_replaced(two_groups, before), timeout_s=300)
        two_groups.wait_settled("3/3", timeout_s=300)
        for pod in two_groups.pod_uids():
            _evict(two_groups, pod)
            two_groups.wait_settled("3/3", timeout_s=300)
        before = two_groups.pod_uids()
        release.install(
            "--set", "podAnnotations.upgraded=yes", "--set", "worker.image.digest=", "--set", "worker.image.tag=x"
        )
        wait_for(
            "NewerRendering", lambda: two_groups.condition("UpToDate")["reason"] == "NewerRendering", timeout_s=120
        )
        release.install()
        assert two_groups.pod_uids() == before
    line = {"bench": "traffic", "metric": "failed_requests", "ours": len(asked.failures), "goal": 0}
    with capsys.disabled():
        print(f"\n{json.dumps(line | {'met': not asked.failures, 'answered_right': asked.num_right, 'clients': 8})}")
    assert asked.failures == []
    assert asked.num_right > 0
    two_groups.scale(2)
    two_groups.wait_settled("2/2")


def _evict(deployed: Deployed, pod: str) -> None:
    """Ask for a pod to be moved elsewhere, as `kubectl drain` does for each of a node; return when another is there."""
    before, where = deployed.pod_uids()[pod], deployed.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": where}}
    path = f"/api/v1/namespaces/{where}/pods/{pod}/eviction"
    deployed.target.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    wait_for(f"another {pod}", lambda: deployed.pod_uids().get(pod) not in (None, before), timeout_s=180)


def _all_replaced(deployed: Deployed, before: dict[str, str]) -> bool:
    now = deployed.pod_uids()
    return now.keys() == before.keys() and not set(now.values()) & set(before.values())
