"""Stories of clients that chat while the cluster changes: what is in flight is finished, what is new is answered."""

from collections.abc import Iterator

import pytest

from e2e.chats import asking_all_along, chats
from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release

LEADERS = ("busy-g0-0", "busy-g1-0")


@pytest.fixture(scope="module")
def two_groups(release: Release) -> Iterator[Deployed]:
    """A deployment of two groups whose pods accept, when they stop, for as long as they do by default."""
    if release.target.cluster is None:
        pytest.skip("`kubectl port-forward` takes one pod of a Service for all chats, and this is about those of two")
    manifest = nano("busy", MODEL_NAMESPACE)
    manifest["spec"]["replicas"] = 2
    del manifest["spec"]["engine"]
    release.target.apply(manifest)
    deployed = Deployed(release.target, "busy", MODEL_NAMESPACE)
    deployed.wait_settled("2/2")
    deployed.wait_answers()
    yield deployed
    deployed.delete()


def test_a_rollout_of_two_groups_breaks_no_chat_and_answers_throughout(two_groups: Deployed) -> None:
    before = two_groups.pod_uids()
    with asking_all_along(two_groups) as asked, chats(two_groups) as in_flight:
        in_flight.open_on(*LEADERS)
        two_groups.set_max_num_seqs(11)
        in_flight.wait_in_flight(LEADERS[0])
        wait_for("pods of the new revision", lambda: _all_replaced(two_groups, before), timeout_s=180)
        two_groups.wait_settled("2/2")
        in_flight.assert_all_right()
    assert asked.failures == []
    assert asked.num_right > 0


def test_a_scale_down_breaks_no_chat(two_groups: Deployed) -> None:
    with asking_all_along(two_groups) as asked, chats(two_groups) as in_flight:
        in_flight.open_on(*LEADERS)
        two_groups.scale(1)
        in_flight.wait_in_flight(LEADERS[1])
        in_flight.assert_all_right()
        two_groups.wait_settled("1/1")
    assert asked.failures == []
    assert asked.num_right > 0


def _all_replaced(deployed: Deployed, before: dict[str, str]) -> bool:
    now = deployed.pod_uids()
    return now.keys() == before.keys() and not set(now.values()) & set(before.values())
