"""What the status says, and when people are told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from glm_operator.api.status import MAX_TEXT, Reason
from glm_operator.observe.observed import Blocked, ObservedGroup
from glm_operator.observe.report import GroupReport
from glm_operator.observe.trouble import Trouble
from glm_operator.rollout.steps import plan_rollout
from glm_operator.status.conditions import Facts, Refused, summarize, transitions
from glm_operator.status.groups import SEVERITY
from unit.operator.operator_builders import a_group, a_pod, a_target, observed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = replace(a_target(replicas=2), revision="new")
REFUSED = Refused("LayoutRefused", "parallelism.expert 3 does not divide 8")
UNSCHEDULABLE = Trouble("Unschedulable", "pod chat-g1-0: no GPU")


def facts(*groups: ObservedGroup, **changes: Any) -> Facts:
    """Return facts of a deployment whose two groups serve, unless others are given."""
    found = observed(*(groups or (a_group(0), a_group(1))))
    whole: dict[str, Any] = {
        "name": "chat",
        "namespace": "models",
        "generation": 7,
        "target": TARGET,
        "refused": None,
        "rollout": plan_rollout(TARGET, found),
        "observed": found,
    }
    return Facts(**{**whole, **changes})


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}


def message(status: dict[str, Any], kind: str = "Ready") -> str:
    return next(str(condition["message"]) for condition in status["conditions"] if condition["type"] == kind)


def a_report(state: str = "starting", **said: Any) -> GroupReport:
    return GroupReport.model_validate({"state": state, **said})


def a_failure(message: str = "no such tensor", *, reason: str = "failed") -> dict[str, Any]:
    cause = {"rank": 1, "pod": 0, "reason": reason, "exit_code": 1, "signal": None, "message": message}
    return {"id": "a-1", "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:09.5Z", "cause": cause}


def test_a_long_last_word_of_a_rank_is_cut() -> None:
    report = a_report("backing_off", consecutive_start_failures=1, generations=[a_failure("x" * 9000)])
    failure = report.last_failure("chat-g0")
    assert failure is not None
    assert failure.message == "x" * MAX_TEXT


def test_all_is_well() -> None:
    status = summarize(facts(), NOW)
    assert conditions(status) == {
        "Planned": ("True", "LayoutFound"),
        "GroupsReady": ("True", "AllGroupsReady"),
        "Progressing": ("False", "Settled"),
        "Degraded": ("False", "Healthy"),
        "Ready": ("True", "AllGroupsReady"),
    }
    assert (status["ready"], status["readyReplicas"], status["replicas"], status["gpus"]) == ("2/2", 2, 2, 0)
    assert status["endpoint"] == "http://chat.models.svc:8000/v1"
    assert status["selector"] == "apps.kubernetes.io/pod-index=0,glm-operator.io/deployment=chat"


def test_every_condition_speaks_of_the_generation_it_saw() -> None:
    status = summarize(facts(), NOW)
    assert (
        {condition["observedGeneration"] for condition in status["conditions"]} == {status["observedGeneration"]} == {7}
    )


def test_a_spec_that_never_was_good_is_not_ready() -> None:
    status = summarize(facts(target=None, refused=REFUSED, rollout=None, observed=observed()), NOW)
    assert conditions(status)["Planned"] == ("False", "LayoutRefused")
    assert conditions(status)["GroupsReady"] == ("False", "LayoutRefused")
    assert conditions(status)["Progressing"] == ("False", "LayoutRefused")
    assert conditions(status)["Ready"] == ("False", "LayoutRefused")
    assert REFUSED.message in message(status)
    assert status["ready"] == "0/0"


def test_a_bad_edit_is_told_while_the_groups_go_on() -> None:
    status = summarize(facts(refused=REFUSED), NOW)
    assert conditions(status)["Planned"] == ("False", "LayoutRefused")
    assert conditions(status)["Ready"] == ("True", "EditRefused")
    assert conditions(status)["Degraded"] == ("True", "EditRefused")
    assert "2/2 groups are ready on the last accepted spec" in message(status)


def test_groups_without_any_accepted_spec_are_not_called_draining() -> None:
    status = summarize(facts(target=None, refused=REFUSED, rollout=None), NOW)
    assert [group["state"] for group in status["groups"]] == ["Ready", "Ready"]


def test_groups_without_any_accepted_spec_are_told_as_they_are() -> None:
    unread: dict[str, Any] = {"target": None, "refused": REFUSED, "rollout": None}
    status = summarize(facts(**unread), NOW)
    assert conditions(status)["Ready"] == ("True", "EditRefused")
    assert conditions(status)["Degraded"] == ("True", "EditRefused")
    assert conditions(status)["Progressing"] == ("False", "Settled")
    assert message(status) == f"2/2 groups are ready; the newest spec was refused: {REFUSED.message}"
    status = summarize(facts(a_group(0), a_group(1, ready=False), **unread), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")


def test_what_a_pod_waits_for_is_told_in_ready() -> None:
    stuck = a_group(1, pods=(a_pod("chat-g1", ready=False, trouble=UNSCHEDULABLE, ip=None, is_scheduled=False),))
    status = summarize(facts(a_group(0), stuck), NOW)
    assert conditions(status)["Ready"] == ("False", "Unschedulable")
    assert message(status) == "1/2 groups are ready; chat-g1: pod chat-g1-0: no GPU"
    assert conditions(status)["Degraded"] == ("True", "Unschedulable")
    assert conditions(status)["Progressing"] == ("False", "Unschedulable")
    assert status["groups"][1]["state"] == "Pending"


def test_a_pod_that_cannot_be_made_is_told_in_the_words_of_who_refused_it() -> None:
    refused = Trouble("WriteDenied", 'pods "chat-g1-0" is forbidden: exceeded quota: gpus')
    status = summarize(facts(a_group(0), replace(a_group(1, pods=()), refused=refused)), NOW)
    assert conditions(status)["Ready"] == ("False", "WriteDenied")
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")
    assert message(status) == f"1/2 groups are ready; chat-g1: {refused.message}"
    assert status["groups"][1]["state"] == "Pending"


def test_the_worst_of_several_is_told_and_the_others_counted() -> None:
    starting = a_group(0, ready=False)
    stuck = a_group(1, pods=(a_pod("chat-g1", ready=False, trouble=UNSCHEDULABLE),))
    assert message(summarize(facts(starting, stuck), NOW)).endswith("chat-g1: pod chat-g1-0: no GPU (and 1 more)")


def test_progress_of_loading_is_told() -> None:
    report = a_report(load={"done_bytes": 30, "total_bytes": 120})
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert "chat-g1: loading weights, 25 %" in message(status)
    assert status["groups"][1]["load"] == {"doneBytes": 30, "totalBytes": 120}
    assert conditions(status)["Progressing"] == ("True", "GroupsStarting")


def test_a_failed_load_is_told_with_the_rank_that_failed_first() -> None:
    report = a_report("backing_off", consecutive_start_failures=2, generations=[a_failure()])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
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
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert message(status) == "1/2 groups are ready; chat-g1: serving, not ready yet"
    assert conditions(status)["Degraded"] == ("False", "Healthy")
    assert status["groups"][1]["state"] == "Starting"


def test_a_group_that_served_is_told_apart_from_one_that_starts() -> None:
    report = a_report(deaths_while_serving=1, generations=[a_failure("killed", reason="killed")])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsNotReady")
    assert (status["groups"][1]["state"], status["groups"][1]["restarts"]) == ("NotReady", 1)


def test_a_group_that_served_and_is_down_is_not_called_healthy() -> None:
    report = a_report("waiting_for_peers", deaths_while_serving=1, missing_pods=[1])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
    assert message(status, "Degraded") == "chat-g1: served before and is starting anew"


@pytest.mark.parametrize("report", [None, a_report("draining", deaths_while_serving=1), a_report("waiting_for_peers")])
def test_pods_that_drain_are_told_before_what_waits_for_them(report: GroupReport | None) -> None:
    leaving = a_group(1, pods=(a_pod("chat-g1"), a_pod("chat-g1", 1, is_leaving=True)))
    old = a_group(1, pods=(a_pod("chat-g1"), a_pod("chat-g1", 1, revision="old", is_leaving=True)))
    reports = {"chat-g1": report} if report is not None else {}
    for group, said in ((leaving, "draining: chat-g1-1"), (old, "pods of the revision before are draining")):
        status = summarize(facts(a_group(0), group, reports=reports), NOW)
        assert conditions(status)["Ready"] == ("False", "GroupsPending")
        assert conditions(status)["Degraded"] == ("False", "Healthy")
        assert message(status) == f"1/2 groups are ready; chat-g1: {said}"


def test_a_pod_that_is_lost_with_its_node_is_told_also_on_its_way_out() -> None:
    lost = Trouble("GroupsNotReady", "pod chat-g1-0: its node n1 does not answer")
    status = summarize(facts(a_group(0), a_group(1, pods=(a_pod("chat-g1", is_leaving=True, trouble=lost),))), NOW)
    assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
    assert message(status) == f"1/2 groups are ready; chat-g1: {lost.message}"


def test_a_group_that_waits_for_its_pods_names_them() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1, 3])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}), NOW)
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
        status = summarize(facts(a_group(0), pods_that_run(0, 0), reports={"chat-g1": report}), NOW)
        assert conditions(status)["Ready"] == ("False", "GroupsNotReady")
        assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
        assert message(status, "Degraded") == f"chat-g1: its pods do not fit together: {why}"
        assert status["groups"][1]["state"] == "NotReady"


def test_pods_that_run_for_long_and_do_not_meet_are_told_of() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1, 2])
    status = summarize(facts(a_group(0), pods_that_run(9, 2, 5), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
    heard = "all pods run, and chat-g1-0 at port 29599 has not heard of chat-g1-1, chat-g1-2 for minutes"
    assert message(status, "Degraded") == f"chat-g1: {heard}: is the port let through?"


def test_pods_that_have_not_run_for_long_may_still_meet() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1])
    status = summarize(facts(a_group(0), pods_that_run(9, 1), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_pods_that_have_just_parted_may_meet_again() -> None:
    parted = a_failure("pod 1 is lost", reason="peer_lost") | {"ended_at": (NOW - timedelta(minutes=1)).isoformat()}
    report = a_report("waiting_for_peers", missing_pods=[1], generations=[parted])
    status = summarize(facts(a_group(0), pods_that_run(99, 99), reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")
    report = a_report("waiting_for_peers", missing_pods=[1], generations=[parted], deaths_while_serving=1)
    status = summarize(facts(a_group(0), pods_that_run(99, 99), reports={"chat-g1": report}), NOW)
    assert message(status, "Degraded") == "chat-g1: served before and is starting anew; peer_lost: pod 1 is lost"


def test_a_report_with_a_time_of_no_zone_is_not_understood() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        a_report(generations=[a_failure() | {"ended_at": "2026-01-01T00:00:09"}])


def test_a_refusal_is_not_told_of_a_pod_that_does_not_run_yet() -> None:
    report = a_report("waiting_for_peers", missing_pods=[1], refused_pods=["pod 1 is of another model"])
    new = a_pod("chat-g1", 1, ready=False, running_since=None)
    group = a_group(1, pods=(a_pod("chat-g1", ready=False, running_since=NOW), new))
    status = summarize(facts(a_group(0), group, reports={"chat-g1": report}), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")


def test_a_rollout_is_progress_until_the_last_group_has_moved() -> None:
    status = summarize(facts(a_group(0), a_group(1, revision="old")), NOW)
    assert conditions(status)["Progressing"] == ("True", "RollingOut")
    assert "chat-g1" in message(status, "Progressing")


def test_surplus_groups_drain_and_count_for_nothing() -> None:
    status = summarize(facts(a_group(0), a_group(1), a_group(2)), NOW)
    assert (status["ready"], status["groups"][2]["state"]) == ("2/2", "Draining")
    assert conditions(status)["Progressing"] == ("True", "ScalingDown")


def test_pods_of_somebody_elses_stateful_set_in_a_surplus_place_are_no_group() -> None:
    theirs = replace(a_group(2, pods=(a_pod("chat-g2", controller="uid-another"),)), exists=False)
    found = replace(observed(a_group(0), a_group(1), theirs), foreign={"chat-g2": {}})
    status = summarize(facts(observed=found, rollout=plan_rollout(TARGET, found)), NOW)
    assert [group["name"] for group in status["groups"]] == ["chat-g0", "chat-g1"]
    assert conditions(status)["Progressing"] == ("False", "Settled")


def test_a_deployment_scaled_to_zero_is_settled_and_not_ready() -> None:
    target = replace(a_target(replicas=0), revision="new")
    none = observed()
    status = summarize(facts(target=target, observed=none, rollout=plan_rollout(target, none)), NOW)
    assert conditions(status)["Ready"] == ("False", "ScaledToZero")
    assert conditions(status)["Progressing"] == ("False", "Settled")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_a_foreign_object_is_named() -> None:
    blocked = Blocked("chat", "NameConflict", "Service chat has no owner and is not taken over")
    status = summarize(facts(blocked=(blocked,)), NOW)
    assert conditions(status)["Ready"] == ("False", "NameConflict")
    assert "Service chat" in message(status, "Degraded")


def test_a_denied_write_is_told_in_the_words_of_who_denied_it() -> None:
    blocked = Blocked("chat-g1", "WriteDenied", "exceeded quota: models, requested: count/statefulsets.apps=1")
    status = summarize(facts(a_group(0), blocked=(blocked,)), NOW)
    assert conditions(status)["Ready"] == ("False", "WriteDenied")
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")
    assert message(status) == message(status, "Degraded") == blocked.message


@pytest.mark.parametrize("name", ["chat-ranks", "chat-worker", "chat-g0", "chat-g2", "chat-5f3a", "chat-g2-0"])
def test_a_denied_write_that_no_client_feels_leaves_ready_alone(name: str) -> None:
    status = summarize(facts(blocked=(Blocked(name, "WriteDenied", "protected"),)), NOW)
    assert conditions(status)["Ready"] == ("True", "AllGroupsReady")
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")
    assert conditions(status)["Progressing"] == ("False", "WriteDenied")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("chat", "WriteDenied"),
        ("chat-ranks", "WriteDenied"),
        ("chat-worker", "WriteDenied"),
        ("chat-g1", "WriteDenied"),
        ("chat-g1-0", "WriteDenied"),
        ("chat-g0", "GroupsStarting"),
        ("chat-g2", "GroupsStarting"),
    ],
)
def test_a_group_that_is_down_is_told_with_the_write_that_it_lacks(name: str, reason: str) -> None:
    denied = Blocked(name, "WriteDenied", "protected")
    status = summarize(facts(a_group(0), a_group(1, ready=False), blocked=(denied,)), NOW)
    assert conditions(status)["Ready"] == ("False", reason)
    assert conditions(status)["Progressing"] == ("True" if reason == "GroupsStarting" else "False", reason)
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")


def test_waiting_for_an_earlier_deployment_to_go_is_no_fault() -> None:
    status = summarize(facts(blocked=(Blocked("chat", "GroupsPending", "still being deleted"),)), NOW)
    assert conditions(status)["Ready"] == ("False", "GroupsPending")
    assert conditions(status)["Progressing"] == ("True", "GroupsPending")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_a_transition_is_dated_only_when_the_status_flips() -> None:
    before = summarize(facts(), NOW)
    later = NOW + timedelta(hours=1)
    dates = {
        condition["type"]: condition["lastTransitionTime"]
        for condition in summarize(facts(a_group(0), a_group(1, ready=False), previous=before), later)["conditions"]
    }
    assert dates["Ready"] == "2026-01-02T04:04:05Z"
    assert dates["Planned"] == "2026-01-02T03:04:05Z"


def test_the_same_facts_make_the_same_status() -> None:
    before = summarize(facts(), NOW)
    assert summarize(facts(previous=before), NOW + timedelta(days=1)) == before


def test_people_are_told_at_transitions_only() -> None:
    starting = summarize(facts(a_group(0), a_group(1, ready=False)), NOW)
    ready = summarize(facts(previous=starting), NOW)
    assert [told.reason for told in transitions({}, starting)] == ["LayoutFound"]
    assert [told.reason for told in transitions(starting, ready)] == ["AllGroupsReady"]
    assert transitions(ready, summarize(facts(previous=ready), NOW)) == []


def test_a_refused_edit_is_told_once_and_as_a_warning() -> None:
    before = summarize(facts(), NOW)
    told = transitions(before, summarize(facts(refused=REFUSED, previous=before), NOW))
    assert [(event.reason, event.is_warning) for event in told] == [("LayoutRefused", True)]


def test_trouble_that_is_over_is_told() -> None:
    stuck = a_group(1, pods=(a_pod("chat-g1", ready=False, trouble=UNSCHEDULABLE),))
    before = summarize(facts(a_group(0), stuck), NOW)
    told = transitions(before, summarize(facts(previous=before), NOW))
    assert ("Healthy", False) in [(event.reason, event.is_warning) for event in told]


@pytest.mark.parametrize("reason", SEVERITY)
def test_every_finding_has_a_documented_reason(reason: str) -> None:
    assert reason in get_args(Reason)
