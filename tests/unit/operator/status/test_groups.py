"""What is said of one group that is not ready, and of what failed in it."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from glm_operator.api.status import MAX_TEXT
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.status.groups import FAILURE_BYTES, WORD_BYTES, group_status, shortened
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import a_group, a_pod
from unit.operator.status_builders import NOW, a_failure, a_report, conditions, facts, message


def test_a_long_last_word_of_a_rank_is_cut() -> None:
    report = a_report("backing_off", consecutive_start_failures=1, generations=[a_failure("x" * 9000)])
    failure = report.last_failure("chat-g0")
    assert failure is not None
    assert failure.message == "x" * MAX_TEXT


def test_progress_of_loading_is_told() -> None:
    report = a_report(load={"done_bytes": 30, "total_bytes": 120})
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert "chat-g1: loading weights, 25 %" in message(status)
    assert status["groups"][1]["load"] == {"doneBytes": 30, "totalBytes": 120}
    assert conditions(status)["Progressing"] == ("True", "GroupsStarting")


def test_a_failed_load_is_told_with_the_rank_that_failed_first() -> None:
    report = a_report("backing_off", consecutive_start_failures=2, generations=[a_failure()])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "LoadFailed")
    told = "chat-g1: rank 1 of pod chat-g1-0 failed while starting: no such tensor (2 starts failed in a row)"
    assert told in message(status)
    group = status["groups"][1]
    assert group["state"] == "BackingOff"
    assert group["lastFailure"] == {
        "rank": 1,
        "pod": "chat-g1-0",
        "reason": "failed",
        "message": "no such tensor",
        "time": "2026-01-01T00:00:09Z",
    }


def test_starts_that_failed_before_a_group_served_again_are_not_told_as_its_trouble() -> None:
    report = a_report("serving", consecutive_start_failures=2, generations=[a_failure()])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert message(status) == "1/2 groups are ready; chat-g1: serving, not ready yet"
    assert conditions(status)["Degraded"] == ("False", "Healthy")
    assert status["groups"][1]["state"] == "Starting"


def test_a_group_that_served_is_told_apart_from_one_that_starts() -> None:
    report = a_report(deaths_while_serving=1, generations=[a_failure("killed", reason="killed")])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsNotReady")
    assert (status["groups"][1]["state"], status["groups"][1]["restarts"]) == ("NotReady", 1)


@pytest.mark.parametrize("report", [None, a_report("draining", deaths_while_serving=1), a_report("waiting_for_peers")])
def test_pods_that_drain_are_told_before_what_waits_for_them(report: GroupReport | None) -> None:
    leaving = a_group(1, pods=(a_pod("chat-g1"), a_pod("chat-g1", 1, is_leaving=True)))
    old = a_group(1, pods=(a_pod("chat-g1"), a_pod("chat-g1", 1, revision="old", is_leaving=True)))
    reports = {"chat-g1": report} if report is not None else {}
    for group, said in ((leaving, "draining: chat-g1-1"), (old, "pods of the revision before are draining")):
        status = summarize(facts(a_group(0), group, reports=reports))
        assert conditions(status)["Ready"] == ("False", "GroupsPending")
        assert conditions(status)["Degraded"] == ("False", "Healthy")
        assert message(status) == f"1/2 groups are ready; chat-g1: {said}"


def test_a_group_that_waits_for_its_pods_names_them() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1, 3])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert "waiting for pods 1, 3 of the group" in message(status)


def pods_that_run(*minutes: int) -> ObservedGroup:
    """Return a group whose pods have run for so long, and are not ready."""
    since = [NOW - timedelta(minutes=each) for each in minutes]
    pods = [a_pod("chat-g1", index, ready=False, running_since=at) for index, at in enumerate(since)]
    return a_group(1, pods=tuple(pods))


def test_pods_that_do_not_fit_together_are_told_of_as_they_say_it() -> None:
    why = "pod 1 has config.json 1a, this group's pod 0 has unreadable: /models is not a folder"
    said: dict[str, Any] = {"missing_pods": [1], "refused_pods": [why]}
    failed = {"consecutive_start_failures": 1, "generations": [a_failure()]}  # of before: not what keeps it down now
    for report in (a_report("waiting_for_peers", **said), a_report("waiting_for_peers", **said, **failed)):
        status = summarize(facts(a_group(0), pods_that_run(0, 0), reports={"chat-g1": report}))
        assert conditions(status)["Ready"] == ("False", "GroupsNotReady")
        assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
        assert message(status, "Degraded") == f"chat-g1: its pods do not fit together: {why}"
        assert status["groups"][1]["state"] == "NotReady"


def test_pods_that_run_for_long_and_do_not_meet_are_told_of() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1, 2])
    status = summarize(facts(a_group(0), pods_that_run(9, 2, 5), reports={"chat-g1": report}))
    assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
    heard = "all pods run, and chat-g1-0 at port 29599 has not heard of chat-g1-1, chat-g1-2 for minutes"
    assert message(status, "Degraded") == f"chat-g1: {heard}: is the port let through?"


def test_pods_that_have_not_run_for_long_may_still_meet() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1])
    status = summarize(facts(a_group(0), pods_that_run(9, 1), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_pods_that_have_just_parted_may_meet_again() -> None:
    parted = a_failure("pod 1 is lost", reason="peer_lost") | {"ended_at": (NOW - timedelta(minutes=1)).isoformat()}
    report = a_report("waiting_for_peers", missing_pods=[1], generations=[parted])
    status = summarize(facts(a_group(0), pods_that_run(99, 99), reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    report = a_report("waiting_for_peers", missing_pods=[1], generations=[parted], deaths_while_serving=1)
    status = summarize(facts(a_group(0), pods_that_run(99, 99), reports={"chat-g1": report}))
    assert message(status, "Degraded") == "chat-g1: served before and is starting again; peer_lost: pod 1 is lost"


def test_a_report_with_a_time_of_no_zone_is_not_understood() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        a_report(generations=[a_failure() | {"ended_at": "2026-01-01T00:00:09"}])


def test_a_refusal_is_not_told_of_a_pod_that_does_not_run_yet() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1], refused_pods=["pod 1 is of another model"])
    new = a_pod("chat-g1", 1, ready=False, running_since=None)
    group = a_group(1, pods=(a_pod("chat-g1", ready=False, running_since=NOW), new))
    status = summarize(facts(a_group(0), group, reports={"chat-g1": report}))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")


@pytest.mark.parametrize(("text", "start"), [("", ""), ("abc", "abc"), ("abcde", "abcd"), ("aä\U0001f600", "aä")])
def test_a_text_is_cut_between_letters(text: str, start: str) -> None:
    assert shortened(text, 4) == start


def test_of_what_failed_last_the_start_is_kept() -> None:
    said = a_report(generations=[a_failure("x" * 9000, reason="y" * 9000)])
    failure = group_status(a_group(0, ready=False), said, None, stays=True).last_failure
    assert failure is not None
    assert (failure.message, failure.reason) == ("x" * FAILURE_BYTES, "y" * WORD_BYTES)


def test_a_group_that_serves_and_is_not_heard_keeps_what_only_its_workers_know() -> None:
    said = a_report("serving", generation="a-2", deaths_while_serving=3, generations=[a_failure()])
    heard = summarize(facts(reports={"chat-g1": said}))
    kept = summarize(facts(previous=heard))["groups"][1]
    assert kept == heard["groups"][1]
    assert (kept["generation"], kept["restarts"]) == ("a-2", 3)
    assert kept["lastFailure"]["message"] == "no such tensor"


def test_a_group_that_is_down_and_is_not_heard_keeps_nothing_of_before() -> None:
    heard = summarize(facts(reports={"chat-g1": a_report("serving", generation="a-2", deaths_while_serving=3)}))
    down = summarize(facts(a_group(0), a_group(1, ready=False), previous=heard))["groups"][1]
    assert (down.get("generation"), down["ready"]) == (None, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_scheduled": False, "ip": None}, "creating pods"),
        ({"ip": None}, "containers are created: images pulled, volumes mounted"),
        ({}, "containers are starting"),
    ],
)
def test_a_group_of_which_no_worker_speaks_is_told_by_its_pods(changes: dict[str, Any], said: str) -> None:
    starting = a_group(1, pods=(a_pod("chat-g1", ready=False, **changes),))
    assert message(summarize(facts(a_group(0), starting))).endswith(f"chat-g1: {said}")
