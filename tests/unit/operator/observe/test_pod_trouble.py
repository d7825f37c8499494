"""What keeps a pod down, in the words of whoever said it."""

from datetime import timedelta
from typing import Any

import pytest

from glm_operator.observe.pod_trouble import pod_trouble
from unit.operator.live_builders import NOW, a_live_pod, ending, lost_pod, waiting


def test_a_pod_that_fits_no_node_is_told_in_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU"}
    trouble = pod_trouble(a_live_pod(conditions=[condition]), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("Unschedulable", "pod chat-g0-0: 0/1 nodes: no GPU")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str) -> None:
    trouble = pod_trouble(waiting(reason, "not found"), NOW)
    assert trouble is not None
    assert trouble.reason == "ImagePullFailed"
    assert f"image worker:1: {reason}: not found" in trouble.message


def test_a_container_that_cannot_be_made_is_told() -> None:
    trouble = pod_trouble(waiting("CreateContainerConfigError", "image has non-numeric user"), NOW)
    assert trouble is not None
    assert (trouble.reason, "non-numeric user" in trouble.message) == ("ContainerConfigError", True)


def test_a_crash_loop_is_told_with_the_last_words_of_the_container() -> None:
    ended = {"terminated": {"exitCode": 78, "reason": "Error", "message": "GLM_DEVICE=tpu: not a device\n"}}
    trouble = pod_trouble(waiting("CrashLoopBackOff", lastState=ended, restartCount=3), NOW)
    assert trouble is not None
    assert trouble.reason == "CrashLooping"
    assert "exit code 78 (Error): GLM_DEVICE=tpu: not a device" in trouble.message


def test_an_init_container_that_a_webhook_put_in_is_told_of_too() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pod = a_live_pod(ready="False", initContainerStatuses=[{"image": "proxy:1", "state": state}])
    trouble = pod_trouble(pod, NOW)
    assert trouble is not None
    assert trouble.reason == "ImagePullFailed"
    assert "image proxy:1" in trouble.message


def started_again(*, after: timedelta, ago: timedelta, restarts: int = 2, ready: bool = False) -> dict[str, Any]:
    """Return a pod whose container was started again that long after its start before, and that long ago."""
    started_at = NOW - ago
    ended = {"exitCode": 1, "reason": "Error", "startedAt": (started_at - after).isoformat()}
    state = {"running": {"startedAt": started_at.isoformat()}}
    container = {"state": state, "lastState": {"terminated": ended}, "restartCount": restarts, "ready": ready}
    return a_live_pod(ready=str(ready), containerStatuses=[container])


def test_a_crash_loop_is_one_also_in_the_seconds_it_runs() -> None:
    trouble = pod_trouble(started_again(after=timedelta(minutes=5), ago=timedelta(seconds=9)), NOW)
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
    assert pod_trouble(pod, NOW) is None


def test_between_an_end_and_the_next_start_the_last_words_are_those_of_that_end() -> None:
    pod = started_again(after=timedelta(seconds=9), ago=timedelta(seconds=9))
    (container,) = pod["status"]["containerStatuses"]
    ended = {"exitCode": 3, "reason": "Error", "startedAt": NOW.isoformat(), "finishedAt": NOW.isoformat()}
    container["state"] = {"terminated": ended}
    trouble = pod_trouble(pod, NOW)
    assert trouble is not None
    assert trouble.message == "pod chat-g0-0 ended exit code 3 (Error)"


def test_a_pod_whose_node_does_not_answer_is_told_with_its_node() -> None:
    for pod in (lost_pod(), lost_pod(deletionTimestamp=(NOW + timedelta(seconds=60)).isoformat())):
        trouble = pod_trouble(pod, NOW)
        assert trouble is not None
        assert (trouble.reason, trouble.message) == ("NodeLost", "pod chat-g0-0: its node n1 does not answer")


@pytest.mark.parametrize(
    "pod",
    [lost_pod(ready_reason="ContainersNotReady", containers="False"), lost_pod(ready_reason="ReadinessGatesNotReady")],
)
def test_a_pod_that_is_not_ready_for_itself_or_for_a_gate_is_not_lost(pod: dict[str, Any]) -> None:
    assert pod_trouble(pod, NOW) is None


def test_a_pod_that_does_not_end_in_its_time_is_told_with_its_node() -> None:
    trouble = pod_trouble(ending(since=timedelta(minutes=5)), NOW)
    assert trouble is not None
    assert trouble.reason == "NodeLost"
    assert trouble.message == "pod chat-g0-0 on node n1 should have ended by 2026-01-02T02:59:05+00:00 and has not"


@pytest.mark.parametrize("since", [timedelta(seconds=-60), timedelta(seconds=5)])
def test_a_pod_that_ends_is_in_no_trouble_whatever_it_was_in(since: timedelta) -> None:
    assert pod_trouble(ending(since=since), NOW) is None


@pytest.mark.parametrize("pod", [a_live_pod(), waiting("ContainerCreating"), a_live_pod(conditions=[])])
def test_a_pod_on_its_way_is_in_no_trouble(pod: dict[str, Any]) -> None:
    assert pod_trouble(pod, NOW) is None
