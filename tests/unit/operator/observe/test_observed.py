"""From live objects to what a pass knows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glm_operator import names
from glm_operator.observe.observed import observe
from glm_operator.observe.trouble import trouble_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = [{"controller": True, "kind": "GLMDeployment", "name": "chat", "uid": "uid-1"}]


def a_stateful_set(
    group: str = "chat-g0", *, owners: list[dict[str, Any]] | None = None, **metadata: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": group,
            "labels": {names.GROUP_LABEL: group},
            "ownerReferences": OURS if owners is None else owners,
            **metadata,
        },
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {names.REVISION_LABEL: "r1"}}}},
    }


def a_live_pod(group: str = "chat-g0", index: int = 0, *, ready: str = "True", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{group}-{index}",
            "uid": "uid-pod",
            "labels": {names.GROUP_LABEL: group, names.REVISION_LABEL: "r1", names.POD_INDEX_LABEL: str(index)},
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}],
            **status,
        },
    }


def waiting(reason: str, message: str = "", **container: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return a_live_pod(ready="False", containerStatuses=[{"image": "worker:1", "state": state, **container}])


def test_a_group_is_its_stateful_set_and_the_pods_of_its_name() -> None:
    group = observe("chat", "uid-1", [a_stateful_set()], [a_live_pod()], NOW).groups[0]
    assert (group.name, group.revision, group.num_pods, group.is_available) == ("chat-g0", "r1", 1, True)
    assert group.leader is not None
    assert group.leader.ip == "10.0.0.1"


def test_a_debugging_copy_of_a_pod_is_no_member_of_its_group() -> None:
    copied = a_live_pod()
    copied["metadata"]["name"] = "chat-g0-0-debug"
    group = observe("chat", "uid-1", [a_stateful_set()], [a_live_pod(), copied], NOW).groups[0]
    assert [pod.name for pod in group.pods] == ["chat-g0-0"]
    assert group.is_available


def test_a_stateful_set_of_somebody_else_is_not_ours() -> None:
    assert observe("chat", "uid-1", [a_stateful_set(owners=[])], [], NOW).groups == {}


@pytest.mark.parametrize(("maker", "stays"), [("uid-now", True), (None, True), ("uid-before", False)])
def test_a_pod_of_an_earlier_stateful_set_of_the_name_is_on_its_way_out(maker: str | None, stays: bool) -> None:
    pod = a_live_pod()
    pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": maker}] if maker else []
    group = observe("chat", "uid-1", [a_stateful_set(uid="uid-now")], [pod], NOW).groups[0]
    assert (group.is_available, not group.pods[0].is_leaving) == (stays, stays)


def test_a_group_of_a_deployment_with_a_longer_name_is_not_ours() -> None:
    assert observe("chat", "uid-1", [a_stateful_set("chat-2-g0")], [a_live_pod("chat-2-g0")], NOW).groups == {}


def test_a_stateful_set_on_its_way_out_no_longer_exists() -> None:
    group = observe("chat", "uid-1", [a_stateful_set(deletionTimestamp="now")], [a_live_pod()], NOW).groups[0]
    assert (group.exists, group.is_available) == (False, False)


@pytest.mark.parametrize(
    "pods",
    [[], [a_live_pod(ready="False")], [a_live_pod(), a_live_pod(index=1)]],
    ids=["none", "not ready", "too many"],
)
def test_a_group_is_available_only_with_exactly_its_pods_ready(pods: list[dict[str, Any]]) -> None:
    assert not observe("chat", "uid-1", [a_stateful_set()], pods, NOW).groups[0].is_available


def test_pods_are_missing_that_a_stateful_set_has_still_to_make() -> None:
    three = a_stateful_set()
    three["spec"]["replicas"] = 3
    leaving = a_live_pod()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    pods_and_missing = {"none": ([], (0, 1, 2)), "one": ([a_live_pod(index=1)], (0, 2)), "leaving": ([leaving], ())}
    for pods, missing in pods_and_missing.values():
        assert observe("chat", "uid-1", [three], pods, NOW).groups[0].missing == missing
    assert observe("chat", "uid-1", [], [a_live_pod()], NOW).groups[0].missing == ()


def test_a_record_is_read_back() -> None:
    record = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": "chat-abc",
            "labels": {names.REVISION_LABEL: "r1"},
            "annotations": {names.REPLICAS_ANNOTATION: "3"},
            "ownerReferences": OURS,
        },
        "data": {"model": {}},
        "revision": 4,
    }
    (read,) = observe("chat", "uid-1", [record], [], NOW).records
    assert (read.name, read.number, read.replicas, read.revision) == ("chat-abc", 4, 3, "r1")


def test_a_pod_that_fits_no_node_is_told_in_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU"}
    trouble = trouble_of(a_live_pod(conditions=[condition]), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("Unschedulable", "pod chat-g0-0: 0/1 nodes: no GPU")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str) -> None:
    trouble = trouble_of(waiting(reason, "not found"), NOW)
    assert trouble is not None
    assert trouble.reason == "ImagePullFailed"
    assert f"image worker:1: {reason}: not found" in trouble.message


def test_a_container_that_cannot_be_made_is_told() -> None:
    trouble = trouble_of(waiting("CreateContainerConfigError", "image has non-numeric user"), NOW)
    assert trouble is not None
    assert (trouble.reason, "non-numeric user" in trouble.message) == ("ContainerConfigError", True)


def test_a_crash_loop_is_told_with_the_last_words_of_the_container() -> None:
    ended = {"terminated": {"exitCode": 78, "reason": "Error", "message": "GLM_DEVICE=tpu: not a device\n"}}
    trouble = trouble_of(waiting("CrashLoopBackOff", lastState=ended, restartCount=3), NOW)
    assert trouble is not None
    assert trouble.reason == "CrashLooping"
    assert "exit code 78 (Error): GLM_DEVICE=tpu: not a device" in trouble.message


def test_an_init_container_that_a_webhook_put_in_is_told_of_too() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pod = a_live_pod(ready="False", initContainerStatuses=[{"image": "proxy:1", "state": state}])
    trouble = trouble_of(pod, NOW)
    assert trouble is not None
    assert trouble.reason == "ImagePullFailed"
    assert "image proxy:1" in trouble.message


@pytest.mark.parametrize(
    ("container", "since"),
    [
        ({"name": "worker", "state": {"running": {"startedAt": NOW.isoformat()}}}, NOW),
        ({"name": "worker", "state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        ({"name": "proxy", "state": {"running": {"startedAt": NOW.isoformat()}}}, None),
    ],
)
def test_a_pod_runs_since_its_worker_was_started(container: dict[str, Any], since: datetime | None) -> None:
    pod = a_live_pod(containerStatuses=[container])
    (found,) = observe("chat", "uid-1", [a_stateful_set()], [pod], NOW).groups[0].pods
    assert found.running_since == since


def started_again(*, after: timedelta, ago: timedelta, restarts: int = 2, ready: bool = False) -> dict[str, Any]:
    """Return a pod whose container was started again that long after its start before, and that long ago."""
    started_at = NOW - ago
    ended = {"exitCode": 1, "reason": "Error", "startedAt": (started_at - after).isoformat()}
    state = {"running": {"startedAt": started_at.isoformat()}}
    container = {"state": state, "lastState": {"terminated": ended}, "restartCount": restarts, "ready": ready}
    return a_live_pod(ready=str(ready), containerStatuses=[container])


def test_a_crash_loop_is_one_also_in_the_seconds_it_runs() -> None:
    trouble = trouble_of(started_again(after=timedelta(minutes=5), ago=timedelta(seconds=9)), NOW)
    assert trouble is not None
    assert trouble.reason == "CrashLooping"


@pytest.mark.parametrize(
    "pod",
    [
        started_again(after=timedelta(seconds=9), ago=timedelta(weeks=3)),
        started_again(after=timedelta(weeks=3), ago=timedelta(seconds=9)),
        started_again(after=timedelta(seconds=9), ago=timedelta(seconds=9), restarts=1),
        started_again(after=timedelta(seconds=9), ago=timedelta(seconds=9), ready=True),
        a_live_pod(ready="False", containerStatuses=[{"state": {"running": {}}, "restartCount": 2, "ready": False}]),
    ],
    ids=["runs for long", "had run for long", "the first time", "ready", "at an unknown time"],
)
def test_a_container_that_was_restarted_is_in_no_crash_loop_by_that_alone(pod: dict[str, Any]) -> None:
    assert trouble_of(pod, NOW) is None


def test_between_an_end_and_the_next_start_the_last_words_are_those_of_that_end() -> None:
    pod = started_again(after=timedelta(seconds=9), ago=timedelta(seconds=9))
    (container,) = pod["status"]["containerStatuses"]
    ended = {"exitCode": 3, "reason": "Error", "startedAt": NOW.isoformat(), "finishedAt": NOW.isoformat()}
    container["state"] = {"terminated": ended}
    trouble = trouble_of(pod, NOW)
    assert trouble is not None
    assert trouble.message == "pod chat-g0-0 ended exit code 3 (Error)"


def lost_pod(*, ready_reason: str | None = None, containers: str = "True", **metadata: Any) -> dict[str, Any]:
    """Return a pod as the node controller leaves one of a node that it no longer hears of."""
    ready = {"type": "Ready", "status": "False"} | ({"reason": ready_reason} if ready_reason else {})
    pod = a_live_pod(conditions=[ready, {"type": "ContainersReady", "status": containers}])
    return {**pod, "metadata": {**pod["metadata"], **metadata}, "spec": {"nodeName": "n1"}}


def ending(*, since: timedelta) -> dict[str, Any]:
    """Return a pod whose grace period ended that long ago."""
    pod = waiting("CrashLoopBackOff", restartCount=3)
    pod["metadata"]["deletionTimestamp"] = (NOW - since).isoformat()
    return {**pod, "spec": {"nodeName": "n1"}}


def test_a_pod_whose_node_does_not_answer_is_told_with_its_node() -> None:
    for pod in (lost_pod(), lost_pod(deletionTimestamp=(NOW + timedelta(seconds=60)).isoformat())):
        trouble = trouble_of(pod, NOW)
        assert trouble is not None
        assert (trouble.reason, trouble.message) == ("GroupsNotReady", "pod chat-g0-0: its node n1 does not answer")


@pytest.mark.parametrize(
    "pod",
    [lost_pod(ready_reason="ContainersNotReady", containers="False"), lost_pod(ready_reason="ReadinessGatesNotReady")],
)
def test_a_pod_that_is_not_ready_for_itself_or_for_a_gate_is_not_lost(pod: dict[str, Any]) -> None:
    assert trouble_of(pod, NOW) is None


def test_a_pod_that_does_not_end_in_its_time_is_told_with_its_node() -> None:
    trouble = trouble_of(ending(since=timedelta(minutes=5)), NOW)
    assert trouble is not None
    assert trouble.reason == "GroupsNotReady"
    assert trouble.message == "pod chat-g0-0 on node n1 was to end by 2026-01-02T02:59:05+00:00 and has not"


@pytest.mark.parametrize("since", [timedelta(seconds=-60), timedelta(seconds=5)])
def test_a_pod_that_ends_is_in_no_trouble_whatever_it_was_in(since: timedelta) -> None:
    assert trouble_of(ending(since=since), NOW) is None


def test_a_pod_of_an_earlier_stateful_set_has_no_say_unless_it_does_not_end() -> None:
    for pod, has_say in ((waiting("ErrImagePull"), False), (ending(since=timedelta(minutes=5)), True)):
        pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": "uid-before"}]
        group = observe("chat", "uid-1", [a_stateful_set(uid="uid-now")], [pod], NOW).groups[0]
        assert (group.trouble is not None) == has_say


@pytest.mark.parametrize("pod", [a_live_pod(), waiting("ContainerCreating"), a_live_pod(conditions=[])])
def test_a_pod_on_its_way_is_in_no_trouble(pod: dict[str, Any]) -> None:
    assert trouble_of(pod, NOW) is None
