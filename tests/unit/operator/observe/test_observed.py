"""From live objects to what a pass knows."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from glm_operator import names
from glm_operator.observe.observed import Observed, observe
from unit.operator.live_builders import NOW, OURS, a_live_pod, a_stateful_set, ending, lost_pod, waiting
from unit.operator.operator_builders import a_group, a_pod


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


def a_record(data: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": "chat-abc",
            "labels": {names.REVISION_LABEL: "r1"},
            "annotations": {names.REPLICAS_ANNOTATION: "3", **annotations},
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": OURS,
        },
        "data": data,
        "revision": 4,
    }


def test_a_record_is_read_back() -> None:
    whole = {"spec": {"model": {}}, "image": "worker:1", "template": {"spec": {}}}
    (read,) = observe("chat", "uid-1", [a_record(whole)], [], NOW).records
    assert (read.name, read.number, read.replicas, read.revision) == ("chat-abc", 4, 3, "r1")
    assert (read.spec, read.template, read.image) == ({"model": {}}, {"spec": {}}, "worker:1")
    assert (read.is_adopted, read.accepted_at) == (False, NOW)


def test_a_record_of_an_adopted_rendering_says_so() -> None:
    record = a_record({"spec": {}, "template": {}}, **{names.ADOPTED_ANNOTATION: "true"})
    (read,) = observe("chat", "uid-1", [record], [], NOW).records
    assert read.is_adopted


def test_a_record_of_the_version_before_is_a_spec_without_a_template() -> None:
    (read,) = observe("chat", "uid-1", [a_record({"model": {}})], [], NOW).records
    assert (read.spec, read.template, read.image) == ({"model": {}}, None, "")


def test_marks_on_a_stateful_set_are_read_back() -> None:
    marks = {names.LEAVING_ANNOTATION: "scaled down", names.SERVED_ANNOTATION: "r1"}
    group = observe("chat", "uid-1", [a_stateful_set(annotations=marks)], [], NOW).groups[0]
    assert (group.leaving, group.served, group.is_staying) == ("scaled down", "r1", False)


def test_what_somebody_elses_stateful_set_has_the_name_of_is_not_ours() -> None:
    found = observe("chat", "uid-1", [a_stateful_set(owners=[])], [a_live_pod()], NOW)
    assert [found.is_of_others(group) for group in found.groups.values()] == [True]
    assert list(found.foreign) == ["chat-g0"]


@pytest.mark.parametrize(
    ("metadata", "changed_at"),
    [
        ({}, None),
        ({"creationTimestamp": "2026-01-02T03:04:05Z"}, NOW),
        (
            {
                "creationTimestamp": "2025-01-01T00:00:00Z",
                "managedFields": [
                    {"manager": names.FIELD_MANAGER, "time": "2026-01-02T03:04:05Z"},
                    {"manager": "kube-controller-manager", "time": "2026-01-09T00:00:00Z"},
                ],
            },
            NOW,
        ),
    ],
    ids=["unknown", "created", "by us"],
)
def test_a_group_was_changed_when_we_changed_it(metadata: dict[str, Any], changed_at: datetime | None) -> None:
    assert observe("chat", "uid-1", [a_stateful_set(**metadata)], [], NOW).groups[0].changed_at == changed_at


def test_a_lost_pod_hangs_since_it_was_told_to_go() -> None:
    told_at = NOW - timedelta(minutes=10)
    ends_at = told_at + timedelta(seconds=140)
    lost = lost_pod(deletionTimestamp=ends_at.isoformat(), deletionGracePeriodSeconds=140)
    group = observe("chat", "uid-1", [a_stateful_set()], [lost], NOW).groups[0]
    assert (group.pods[0].hangs_since, group.hangs_for(NOW)) == (told_at, timedelta(minutes=10))


@pytest.mark.parametrize("pod", [a_live_pod(), lost_pod(), ending(since=timedelta(seconds=-60))])
def test_a_pod_that_was_not_told_to_go_or_drains_does_not_hang(pod: dict[str, Any]) -> None:
    group = observe("chat", "uid-1", [a_stateful_set()], [pod], NOW).groups[0]
    assert (group.pods[0].hangs_since, group.hangs_for(NOW)) == (None, timedelta(0))


def test_the_place_of_a_pod_is_in_its_name_where_no_label_says_it() -> None:
    pod = a_live_pod(index=3)
    del pod["metadata"]["labels"][names.POD_INDEX_LABEL]
    assert observe("chat", "uid-1", [], [pod], NOW).groups[0].pods[0].index == 3


@pytest.mark.parametrize(("ago", "is_available"), [(9, False), (10, True)])
def test_a_group_counts_as_available_once_it_was_ready_for_long_enough(ago: int, is_available: bool) -> None:
    ready = a_pod("chat-g0", ready_changed_at=NOW - timedelta(seconds=ago))
    assert a_group(0, pods=(ready,)).is_available_for(timedelta(seconds=10), NOW) is is_available


def test_an_orphan_keeps_the_place_of_its_group_and_a_pod_that_drains_does_not() -> None:
    orphan, leaving, made = a_pod("chat-g0"), a_pod("chat-g0", is_leaving=True), a_pod("chat-g0", controller="uid")
    groups = [a_group(0, pods=(pod,), exists=False) for pod in (orphan, leaving, made)]
    assert [group.is_staying for group in groups] == [True, False, False]
    assert not any(Observed(groups={0: group}).has_groups for group in groups)


def test_a_group_that_never_served_has_its_time_since_we_changed_it() -> None:
    times = [NOW + timedelta(seconds=second) for second in range(4)]
    pod = a_pod("chat-g0", ready=False, created_at=times[1], ready_changed_at=times[2])
    assert a_group(0, pods=(pod,), changed_at=times[0]).down_since == times[0], "pods that come and go give no respite"
    assert a_group(0, pods=()).down_since is None


def test_a_group_that_served_has_its_time_since_it_ceased_to() -> None:
    times = [NOW + timedelta(seconds=second) for second in range(4)]
    pod = a_pod("chat-g0", ready=False, ready_changed_at=times[2])
    assert a_group(0, pods=(pod,), served="new", changed_at=times[0]).down_since == times[2]
    assert a_group(0, pods=(pod,), served="new", changed_at=times[3]).down_since == times[3]


@pytest.mark.parametrize(("age_s", "lacks"), [(29, False), (31, True)])
def test_a_group_whose_pods_are_not_created_for_long_lacks_room(age_s: int, lacks: bool) -> None:
    group = a_group(0, pods=(), changed_at=NOW - timedelta(seconds=age_s))
    assert group.lacks_room(NOW) is lacks


def test_a_group_whose_stateful_set_was_emptied_is_not_available() -> None:
    assert not a_group(0, pods=(), num_pods=0).is_available


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


def test_a_pod_of_an_earlier_stateful_set_has_no_say_unless_it_does_not_end() -> None:
    for pod, has_say in ((waiting("ErrImagePull"), False), (ending(since=timedelta(minutes=5)), True)):
        pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": "uid-before"}]
        group = observe("chat", "uid-1", [a_stateful_set(uid="uid-now")], [pod], NOW).groups[0]
        assert (group.trouble is not None) == has_say
