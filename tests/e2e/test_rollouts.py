"""Stories of rollouts that meet trouble: what serves goes on serving, and a person sees why and gets back."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.chats import asking_all_along
from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.kubectl_glm import kubectl_glm
from e2e.operator_release import Release
from e2e.target import Target

BAD_IMAGE = "10.201.0.2:5000/no-such-image:1"
SLOT = "e2e.example/slots"


def rollout(deployed: Deployed, command: str, *arguments: str, status: int = 0) -> str:
    target = deployed.target
    return kubectl_glm(target, "rollout", command, deployed.name, "-n", deployed.namespace, *arguments, status=status)


def groups(deployed: Deployed) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in deployed.status()["groups"]}


@pytest.mark.long
def test_a_bad_image_during_a_reload_costs_one_group_and_is_undone(pair: Deployed) -> None:
    revision = pair.status()["revision"]
    with asking_all_along(pair) as asked:
        # One group loads its weights again while the edit arrives.
        pair.target.kubectl("delete", "pod", "pair-g1-0", "-n", MODEL_NAMESPACE, "--wait=false")
        pair.patch(engine={"image": BAD_IMAGE})

        def is_stuck() -> bool:
            told = pair.condition("Progressing")
            return (told["status"], told["reason"]) == ("False", "RolloutStuck") and "no-such-image" in told["message"]

        wait_for("RolloutStuck in Progressing", is_stuck, timeout_s=120)
        found = groups(pair)
        assert sorted(group["ready"] for group in found.values()) == [False, True]
        assert [group["revision"] for group in found.values() if group["ready"]] == [revision]
        assert pair.status()["upToDate"] == "1/2"
        stalled = pair.condition("Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "RolloutStuck")
        assert "RolloutStuck" in rollout(pair, "status", status=1)
        rollout(pair, "undo")
        assert "2/2 up to date" in rollout(pair, "status")
        pair.wait_settled("2/2")
    assert pair.status()["revision"] == revision
    assert asked.failures == []
    events = pair.target.items("events", MODEL_NAMESPACE)
    told = {event["reason"] for event in events if event["involvedObject"]["name"] == "pair"}
    assert {"RolloutStarted", "GroupMoved", "RolloutStuck", "RolledBack", "RolloutCompleted"} <= told


def callers_get_the_revision_that_was_said(pair: Deployed, revision: str) -> None:
    """While a rollout stands between two revisions, give the newest one nobody, then everybody."""
    is_new = {name: group["revision"] == revision for name, group in groups(pair).items()}
    assert sorted(is_new.values()) == [False, True]

    def num_asked() -> dict[bool, float]:
        return {new: pair.metric(f"{group}-0", "glm_requests_total") for group, new in is_new.items()}

    for weight, gets_all in ((0, False), (100, True)):
        said = f"{weight} % of the callers get revision {revision}"
        pair.patch(gateway={"canary": {"weight": weight}})
        wait_for(said, lambda said=said: said in pair.condition("GatewayReady")["message"], timeout_s=60)  # type: ignore[misc]
        wait_for("its file at all pods", lambda: has_read_its_file(pair), timeout_s=60)
        before = num_asked()
        assert all(pair.answers_right() for _ in range(4))
        after = num_asked()
        assert {new: after[new] - before[new] for new in after} == {gets_all: 4, not gets_all: 0}
    pair.patch(gateway={"canary": None})


def has_read_its_file(pair: Deployed) -> bool:
    file = pair.target.get("configmap", "pair-gateway", "-n", pair.namespace)["data"]["gateway.json"]
    digest = hashlib.sha256(file.encode()).hexdigest()
    return {pair.state(pod["metadata"]["name"])["config_digest"] for pod in pair.pods("gateway")} == {digest}


def test_a_rollout_is_paused_seen_and_resumed(pair: Deployed) -> None:
    before = pair.pod_uids()
    rollout(pair, "pause")
    pair.set_max_num_seqs(33)
    wait_for("RolloutPaused", lambda: pair.condition("Progressing")["reason"] == "RolloutPaused", timeout_s=60)
    assert pair.pod_uids() == before
    assert "0/2" in pair.target.kubectl("get", "glmd", "pair", "-n", MODEL_NAMESPACE)
    old = {group["revision"] for group in groups(pair).values()}
    pair.patch(rollout={"minReadySeconds": 20})  # time to stand between two revisions
    rollout(pair, "resume")
    wait_for(
        "the first group on its way",
        lambda: {each["revision"] for each in groups(pair).values()} - old,
        timeout_s=60,
        poll_s=0.2,
    )
    rollout(pair, "pause")
    wait_for(
        "one group of each revision",
        lambda: (pair.status()["ready"], pair.status()["upToDate"]) == ("2/2", "1/2"),
        timeout_s=120,
    )
    callers_get_the_revision_that_was_said(pair, pair.status()["revision"])
    pair.patch(rollout={"minReadySeconds": None})
    rollout(pair, "resume")
    assert "2/2 up to date, 2/2 ready" in rollout(pair, "status")
    assert not before.items() & pair.pod_uids().items()
    kept = rollout(pair, "history")
    assert pair.status()["revision"] in kept
    assert "current" in kept


@pytest.fixture
def no_node(release: Release) -> Iterator[Target]:
    """A cluster whose one node takes no further pods, until the story lets it."""
    target = release.target
    if target.cluster is None:
        pytest.skip("this story cordons every node of the cluster, which is for others to decide on a given one")
    (node,) = [item["metadata"]["name"] for item in target.get("nodes")["items"]]
    yield target
    target.kubectl("uncordon", node)


@pytest.mark.long
@pytest.mark.alone
def test_a_scale_down_while_groups_are_down_keeps_the_one_that_serves(pair: Deployed, no_node: Target) -> None:
    (node,) = [item["metadata"]["name"] for item in no_node.get("nodes")["items"]]
    no_node.kubectl("cordon", node)
    no_node.kubectl("delete", "pod", "pair-g0-0", "-n", MODEL_NAMESPACE, "--wait=false")

    def is_down() -> bool:
        found = groups(pair)
        return not found["pair-g0"]["ready"] and found["pair-g1"]["ready"]

    wait_for("the first group down", is_down, timeout_s=60)
    serving = pair.pod_uids()["pair-g1-0"]
    with asking_all_along(pair) as asked:
        pair.scale(1)
        pair.wait_settled("1/1")
    assert pair.pod_uids() == {"pair-g1-0": serving}
    assert asked.failures == []
    no_node.kubectl("uncordon", node)
    pair.scale(2)
    pair.wait_settled("2/2")
    assert sorted(groups(pair)) == ["pair-g0", "pair-g1"], "a newcomer takes the lowest free index"


@pytest.fixture
def slots(release: Release) -> Iterator[str]:
    """A resource of which the node has two."""
    target = release.target
    if target.cluster is None:
        pytest.skip("this story gives a node a resource of its own, which is for others to do on a given cluster")
    (node,) = [item["metadata"]["name"] for item in target.get("nodes")["items"]]
    for kind in ("capacity", "allocatable"):
        add = {"op": "add", "path": f"/status/{kind}/{SLOT.replace('/', '~1')}", "value": "2"}
        target.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps([add]))
    yield SLOT
    for kind in ("capacity", "allocatable"):
        remove = {"op": "remove", "path": f"/status/{kind}/{SLOT.replace('/', '~1')}"}
        target.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps([remove]))


@pytest.mark.long
def test_a_group_that_fits_no_node_holds_up_no_rollout(release: Release, slots: str) -> None:
    tight = Deployed(release.target, "tight", MODEL_NAMESPACE)
    manifest = nano(
        "tight",
        MODEL_NAMESPACE,
        ranks_per_pod=1,
        ranks=1,
        resources={"requests": {"cpu": "20m"}, "limits": {slots: "1"}},
    )
    release.target.apply({**manifest, "spec": {**manifest["spec"], "replicas": 3}})

    def is_told() -> bool:
        ready = tight.condition("Ready")
        return ready["reason"] == "Unschedulable" and ready["message"].startswith("2/3")

    wait_for("two groups ready and the third unschedulable", is_told, timeout_s=120)
    tight.wait_answers()
    before = tight.status()["revision"]
    with asking_all_along(tight) as asked:
        tight.set_max_num_seqs(14)

        def has_moved() -> bool:
            status = tight.status()
            return status["revision"] != before and (status["upToDate"], status["ready"]) == ("3/3", "2/3")

        wait_for("all groups at the new revision", has_moved, timeout_s=180)
    assert asked.failures == []
    tight.delete()


@pytest.mark.long  # tests/e2e/test_release.py has another release that takes models over
@pytest.mark.alone
def test_an_operator_upgrade_with_another_worker_image_moves_nothing(pair: Deployed, release: Release) -> None:
    before = pair.pod_uids()
    flags = ("--set", "worker.image.repository=10.201.0.2:5000/no-such-image", "--set", "worker.image.digest=")
    with asking_all_along(pair) as asked:
        release.install(*flags, "--set", "worker.image.tag=none")

        def is_told() -> bool:
            found = pair.condition("UpToDate")
            return (found["status"], found["reason"]) == ("False", "NewerRendering")

        try:
            wait_for("NewerRendering in UpToDate", is_told, timeout_s=120)
            assert pair.pod_uids() == before
            assert pair.condition("Ready")["status"] == "True"
        finally:
            release.install()
        wait_for("UpToDate again", lambda: pair.condition("UpToDate")["status"] == "True", timeout_s=120)
    assert pair.pod_uids() == before
    assert asked.failures == []
