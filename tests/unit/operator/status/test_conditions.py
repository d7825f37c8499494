"""What the conditions say, each in one word of the list and in a sentence."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from glm_operator.api.trouble import Trouble
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed
from unit.operator.status_builders import (
    NOW,
    REFUSED,
    TARGET,
    a_report,
    a_stuck_group,
    conditions,
    facts,
    message,
)


def test_all_is_well() -> None:
    status = summarize(facts())
    assert conditions(status) == {
        "Planned": ("True", "LayoutFound"),
        "GroupsReady": ("True", "AllGroupsReady"),
        "Progressing": ("False", "Settled"),
        "Degraded": ("False", "Healthy"),
        "UpToDate": ("True", "UpToDate"),
        "MetricsAvailable": ("Unknown", "NotMeasured"),
        "ScalingActive": ("False", "ScalingDisabled"),
        "SLOMet": ("Unknown", "NoPromise"),
        "PolicyApplied": ("True", "PolicyTaken"),
        "SettingsKnown": ("Unknown", "SettingsUnheard"),
        "GatewayReady": ("False", "GatewayDisabled"),
        "Ready": ("True", "AllGroupsReady"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("False", "Healthy"),
    }
    assert {condition["message"] for condition in status["conditions"]} >= {"healthy", "up to date"}
    assert (status["ready"], status["readyReplicas"], status["replicas"], status["gpus"]) == ("2/2", 2, 2, 0)
    assert status["endpoint"] == "http://chat.models.svc:8000/v1"
    assert status["selector"] == "apps.kubernetes.io/pod-index=0,glm-operator.io/deployment=chat"


def test_every_condition_speaks_of_the_generation_it_saw() -> None:
    status = summarize(facts())
    assert (
        {condition["observedGeneration"] for condition in status["conditions"]} == {status["observedGeneration"]} == {7}
    )


def test_a_spec_that_never_was_good_is_not_ready() -> None:
    status = summarize(facts(target=None, refused=REFUSED, observed=observed()))
    assert conditions(status)["Planned"] == ("False", "LayoutRefused")
    assert conditions(status)["GroupsReady"] == ("False", "LayoutRefused")
    assert conditions(status)["Progressing"] == ("False", "LayoutRefused")
    assert conditions(status)["Ready"] == ("False", "LayoutRefused")
    assert conditions(status)["UpToDate"] == ("Unknown", "LayoutRefused")
    assert REFUSED.message in message(status)
    assert status["ready"] == "0/0"


def test_a_bad_edit_is_told_while_the_groups_go_on() -> None:
    status = summarize(facts(refused=REFUSED))
    assert conditions(status)["Planned"] == ("False", "LayoutRefused")
    assert conditions(status)["Ready"] == ("True", "EditRefused")
    assert conditions(status)["Degraded"] == ("True", "EditRefused")
    assert "2/2 groups are ready on the last accepted spec" in message(status)


def test_groups_without_any_accepted_spec_are_told_as_they_are() -> None:
    unread: dict[str, Any] = {"target": None, "refused": REFUSED}
    status = summarize(facts(**unread))
    assert conditions(status)["Ready"] == ("True", "EditRefused")
    assert conditions(status)["Degraded"] == ("True", "EditRefused")
    assert conditions(status)["Progressing"] == ("False", "Settled")
    assert message(status) == f"2/2 groups are ready; the newest spec was refused: {REFUSED.message}"
    status = summarize(facts(a_group(0), a_group(1, ready=False), **unread))
    assert conditions(status)["Ready"] == ("False", "GroupsStarting")


def test_what_a_pod_waits_for_is_told_in_ready() -> None:
    stuck = a_stuck_group(1, ip=None, is_scheduled=False)
    status = summarize(facts(a_group(0), stuck))
    assert conditions(status)["Ready"] == ("False", "Unschedulable")
    assert message(status) == "1/2 groups are ready; chat-g1: pod chat-g1-0: no GPU"
    assert conditions(status)["Degraded"] == ("True", "Unschedulable")
    assert conditions(status)["Progressing"] == ("False", "Unschedulable")
    assert status["groups"][1]["state"] == "Pending"


def test_a_pod_that_cannot_be_made_is_told_in_the_words_of_who_refused_it() -> None:
    refused = Trouble("chat-g1", "WriteDenied", 'pods "chat-g1-0" is forbidden: exceeded quota: gpus')
    status = summarize(facts(a_group(0), a_group(1, pods=(), refused=refused)))
    assert conditions(status)["Ready"] == ("False", "WriteDenied")
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")
    assert message(status) == f"1/2 groups are ready; chat-g1: {refused.message}"
    assert status["groups"][1]["state"] == "Pending"


def test_the_worst_of_several_is_told_and_the_others_counted() -> None:
    starting = a_group(0, ready=False)
    assert message(summarize(facts(starting, a_stuck_group(1)))).endswith("chat-g1: pod chat-g1-0: no GPU (and 1 more)")


def test_a_group_that_served_and_is_down_is_not_called_healthy() -> None:
    report = a_report("waiting_for_peers", deaths_while_serving=1, missing_pods=[1])
    status = summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": report}))
    assert conditions(status)["Degraded"] == ("True", "GroupsNotReady")
    assert message(status, "Degraded") == "chat-g1: served before and is starting again"


def test_a_pod_that_is_lost_with_its_node_is_told_also_on_its_way_out() -> None:
    lost = Trouble("chat-g1-0", "NodeLost", "pod chat-g1-0: its node n1 does not answer")
    status = summarize(facts(a_group(0), a_stuck_group(1, lost, is_leaving=True)))
    assert conditions(status)["Degraded"] == ("True", "NodeLost")
    assert conditions(status)["Progressing"] == ("True", "NodeLost"), "the group is replaced after a while"
    assert message(status) == f"1/2 groups are ready; chat-g1: {lost.message}"
    assert status["groups"][1]["state"] == "NotReady"


def test_a_rollout_is_progress_until_the_last_group_has_moved() -> None:
    status = summarize(facts(a_group(0), a_group(1, revision="old")))
    assert conditions(status)["Progressing"] == ("True", "RollingOut")
    assert "chat-g1" in message(status, "Progressing")


def test_a_deployment_scaled_to_zero_is_settled_and_not_ready() -> None:
    status = summarize(facts(target=moving_to(replicas=0), observed=observed()))
    assert conditions(status)["Ready"] == ("False", "ScaledToZero")
    assert conditions(status)["Progressing"] == ("False", "Settled")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_a_foreign_object_is_named() -> None:
    blocked = Trouble("chat", "NameConflict", "Service chat has no owner and is not taken over")
    status = summarize(facts(blocked=(blocked,)))
    assert conditions(status)["Ready"] == ("False", "NameConflict")
    assert "Service chat" in message(status, "Degraded")


def test_a_denied_write_is_told_in_the_words_of_who_denied_it() -> None:
    blocked = Trouble("chat-g1", "WriteDenied", "exceeded quota: models, requested: count/statefulsets.apps=1")
    status = summarize(facts(a_group(0), blocked=(blocked,)))
    assert conditions(status)["Ready"] == ("False", "WriteDenied")
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")
    assert message(status) == message(status, "Degraded") == blocked.message


@pytest.mark.parametrize("name", ["chat-ranks", "chat-worker", "chat-g0", "chat-g2", "chat-5f3a", "chat-g2-0"])
def test_a_denied_write_that_no_client_feels_leaves_ready_alone(name: str) -> None:
    status = summarize(facts(blocked=(Trouble(name, "WriteDenied", "protected"),)))
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
    denied = Trouble(name, "WriteDenied", "protected")
    status = summarize(facts(a_group(0), a_group(1, ready=False), blocked=(denied,)))
    assert conditions(status)["Ready"] == ("False", reason)
    assert conditions(status)["Progressing"] == ("True" if reason == "GroupsStarting" else "False", reason)
    assert conditions(status)["Degraded"] == ("True", "WriteDenied")


def test_waiting_for_an_earlier_deployment_to_go_is_no_fault() -> None:
    status = summarize(facts(blocked=(Trouble("chat", "GroupsPending", "still being deleted"),)))
    assert conditions(status)["Ready"] == ("False", "GroupsPending")
    assert conditions(status)["Progressing"] == ("True", "GroupsPending")
    assert conditions(status)["Degraded"] == ("False", "Healthy")


def test_a_transition_is_dated_only_when_the_status_flips() -> None:
    before = summarize(facts())
    later = facts(a_group(0), a_group(1, ready=False), previous=before, now=NOW + timedelta(hours=1))
    dates = {condition["type"]: condition["lastTransitionTime"] for condition in summarize(later)["conditions"]}
    assert dates["Ready"] == "2026-01-02T04:04:05Z"
    assert dates["Planned"] == "2026-01-02T03:04:05Z"


def test_what_is_rolled_out_is_told_with_what_it_waits_for_and_what_is_to_come() -> None:
    old = [a_group(index, revision="old") for index in (1, 2)]
    status = summarize(facts(a_group(0, ready=False, served="old"), *old, target=moving_to(replicas=3)))
    assert message(status, "Progressing") == (
        "0/3 groups are at revision new; chat-g0: containers are starting; still to be moved: chat-g1, chat-g2"
    )


def test_a_group_that_was_moved_last_is_rolling_out_until_it_serves() -> None:
    status = summarize(facts(a_group(0), a_group(1, ready=False, served="old")))
    assert conditions(status)["Progressing"] == ("True", "RollingOut")
    status = summarize(facts(a_group(0), a_group(1, ready=False, served="new")))
    assert conditions(status)["Progressing"][1] != "RollingOut", "it only reloads"


def test_a_rollout_of_one_group_says_that_it_interrupts_service() -> None:
    status = summarize(facts(a_group(0, revision="old"), target=moving_to(replicas=1)))
    assert message(status, "Progressing").endswith("; with one group the rollout interrupts service")
    status = summarize(facts(a_group(0), a_group(1, revision="old")))
    assert "interrupts" not in message(status, "Progressing")


def test_a_paused_rollout_says_whom_it_holds() -> None:
    target = moving_to(replicas=2, rollout={"paused": True})
    status = summarize(facts(a_group(0), a_group(1, revision="old"), target=target))
    assert conditions(status)["Progressing"] == ("False", "RolloutPaused")
    assert message(status, "Progressing") == "paused; still to be moved to revision new: chat-g1"
    assert conditions(status)["Reconciling"] == ("False", "RolloutPaused")
    assert conditions(status)["Stalled"] == ("False", "Healthy"), "it is held on purpose"


def a_stuck_rollout(*, late: bool = True) -> dict[str, Any]:
    """Return the status of a rollout whose first group has had its time, or nearly."""
    target = moving_to(replicas=2, rollout={"progressDeadlineSeconds": 600})
    since = NOW - timedelta(seconds=601 if late else 600)
    return summarize(facts(a_group(0, ready=False, changed_at=since), a_group(1, revision="old"), target=target))


def test_a_rollout_that_stands_still_is_told_with_its_cause_and_its_deadline() -> None:
    status = a_stuck_rollout()
    for kind, claimed in (("Progressing", "False"), ("Degraded", "True"), ("Stalled", "True")):
        assert conditions(status)[kind] == (claimed, "RolloutStuck")
        assert message(status, kind) == (
            "chat-g0 did not become available at revision new within 600 s: containers are starting; not moved: chat-g1"
        )
    assert conditions(status)["Reconciling"] == ("False", "RolloutStuck")
    assert conditions(a_stuck_rollout(late=False))["Progressing"] == ("True", "RollingOut")


@pytest.mark.parametrize(
    ("status", "reconciling", "stalled"),
    [
        (summarize(facts()), ("False", "Settled"), ("False", "Healthy")),
        (summarize(facts(refused=REFUSED)), ("False", "LayoutRefused"), ("True", "LayoutRefused")),
        (
            summarize(facts(target=None, refused=REFUSED, observed=observed())),
            ("False", "LayoutRefused"),
            ("True", "LayoutRefused"),
        ),
        (
            summarize(facts(a_group(0), a_group(1, revision="old"))),
            ("True", "RollingOut"),
            ("False", "Healthy"),
        ),
        (summarize(facts(a_group(0), a_stuck_group())), ("False", "Unschedulable"), ("True", "Unschedulable")),
        (summarize(facts(a_group(0))), ("True", "GroupsPending"), ("False", "Healthy")),
    ],
    ids=["settled", "refused", "never accepted", "on its way", "in trouble", "scaling up"],
)
def test_kstatus_is_told_what_has_failed_and_what_is_on_its_way(
    status: dict[str, Any], reconciling: tuple[str, str], stalled: tuple[str, str]
) -> None:
    assert (conditions(status)["Reconciling"], conditions(status)["Stalled"]) == (reconciling, stalled)


def test_newcomers_that_wait_say_for_whom() -> None:
    no_node = a_pod("chat-g0", ready=False, is_scheduled=False)
    first = a_group(0, pods=(no_node, replace(no_node, name="chat-g0-1", index=1)))
    status = summarize(facts(first, target=moving_to(replicas=2, num_pods=2)))
    assert message(status) == "0/2 groups are ready; chat-g0: creating pods (and 1 more)"
    status = summarize(facts(a_group(1, pods=first.pods), target=moving_to(replicas=2, num_pods=2)))
    assert message(status).startswith("0/2 groups are ready; chat-g0: waits until chat-g1 is scheduled")


def test_a_newer_rendering_is_offered_with_the_command_that_takes_it() -> None:
    target = replace(TARGET, newer_revision="newest")
    status = summarize(facts(target=target))
    assert conditions(status)["UpToDate"] == ("False", "NewerRendering")
    assert message(status, "UpToDate").endswith("until it is adopted: kubectl glm rollout adopt chat -n models")
    assert status["newerRevision"] == "newest"
    assert conditions(status)["Ready"] == ("True", "AllGroupsReady")
    status = summarize(facts(target=target, adoption_waits="waits for the adoption of models/a"))
    assert message(status, "UpToDate").endswith("; waits for the adoption of models/a")


def test_workers_that_do_not_report_their_load_are_named() -> None:
    older, newer = a_report("serving"), a_report("serving", in_flight_tokens=None)
    status = summarize(facts(reports={"chat-g0": newer, "chat-g1": older}))
    assert conditions(status)["UpToDate"] == ("False", "OlderWorkers")
    assert message(status, "UpToDate") == "no tokens in flight reported by chat-g1; a scale-down chooses by index"
    status = summarize(facts(reports={"chat-g0": newer, "chat-g1": newer}, previous=status))
    assert conditions(status)["UpToDate"] == ("True", "UpToDate"), "not known just now is reported"


def test_older_workers_stay_older_while_nobody_has_asked_them() -> None:
    before = summarize(facts(reports={"chat-g1": a_report("serving")}))
    assert message(summarize(facts(previous=before)), "UpToDate") == message(before, "UpToDate")
