"""The status as a whole: its numbers, its list of groups, its size."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from glm_operator.api.policy import Policy
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import MAX_CLASSES, Slo
from glm_operator.api.status import MAX_TEXT
from glm_operator.api.trouble import Trouble
from glm_operator.status.summary import MAX_LISTED, summarize
from unit.operator.measured_builders import a_change, a_class, a_decision, measured, value
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed
from unit.operator.status_builders import NOW, REFUSED, a_failure, a_report, conditions, facts


def test_groups_without_any_accepted_spec_are_not_called_draining() -> None:
    status = summarize(facts(target=None, refused=REFUSED))
    assert [group["state"] for group in status["groups"]] == ["Ready", "Ready"]


def test_surplus_groups_drain_and_count_for_nothing() -> None:
    status = summarize(facts(a_group(0), a_group(1), a_group(2)))
    assert (status["ready"], status["groups"][2]["state"]) == ("2/2", "Draining")
    assert conditions(status)["Progressing"] == ("True", "ScalingDown")


def test_pods_of_somebody_elses_stateful_set_in_a_surplus_place_are_no_group() -> None:
    theirs = a_group(2, exists=False, pods=(a_pod("chat-g2", controller="uid-another"),))
    found = replace(observed(a_group(0), a_group(1), theirs), foreign={"chat-g2": {}})
    status = summarize(facts(observed=found))
    assert [group["name"] for group in status["groups"]] == ["chat-g0", "chat-g1"]
    assert conditions(status)["Progressing"] == ("False", "Settled")


def test_the_same_facts_make_the_same_status() -> None:
    before = summarize(facts())
    assert summarize(facts(previous=before, now=NOW + timedelta(days=1))) == before


def test_groups_at_the_newest_revision_are_counted() -> None:
    status = summarize(facts(a_group(0), a_group(1, revision="old")))
    assert (status["upToDate"], status["updatedReplicas"], status["ready"]) == ("1/2", 1, "2/2")
    status = summarize(facts(a_group(0), target=moving_to(replicas=3)))
    assert (status["upToDate"], status["replicas"]) == ("1/3", 1), "those still to be made are not there yet"


def test_groups_are_counted_by_their_state() -> None:
    status = summarize(facts(a_group(0), a_group(1, ready=False), a_group(2, exists=False)))
    assert status["groupStates"] == {"Draining": 1, "Ready": 1, "Starting": 1}


def test_an_empty_object_is_left_out() -> None:
    """An apply that empties an object of the status leaves null in it, which the API server refuses as a whole."""
    assert "groupStates" not in summarize(facts(target=moving_to(replicas=0), observed=observed()))


def test_of_very_many_groups_those_that_are_not_ready_are_listed() -> None:
    wanted = MAX_LISTED + 20
    groups = [a_group(index, ready=index < wanted - 5) for index in range(wanted)]
    status = summarize(facts(*groups, target=moving_to(replicas=wanted)))
    listed = [group["name"] for group in status["groups"]]
    assert (len(listed), status["groupsOmitted"]) == (MAX_LISTED, 20)
    assert listed[-5:] == [f"chat-g{index}" for index in range(wanted - 5, wanted)]
    assert listed[:3] == ["chat-g0", "chat-g1", "chat-g2"]
    assert status["groupStates"] == {"Ready": wanted - 5, "Starting": 5}


@pytest.mark.parametrize("letter", ["x", "\U0001f600", "\n", "\0"], ids=["1 byte", "4 bytes", "line ends", "NULs"])
def test_a_status_of_a_thousand_groups_that_fail_is_small(letter: str) -> None:
    text = letter * MAX_TEXT
    said = a_report("backing_off", consecutive_start_failures=1, generations=[a_failure(text, reason=text)])
    groups = [a_group(index, ready=False) for index in range(1000)]
    whole = facts(
        *groups,
        target=moving_to(replicas=1000),
        reports={group.name: said for group in groups},
        policy=Policy.model_validate({"reasoning": {"visibility": "Hidden"}}),
        policy_refused={group.name: text for group in groups},
        blocked=(Trouble("chat", "WriteDenied", text),),
        refused=Trouble("spec", "InvalidSpec", text),
        **_everything_measured(text),
    )
    status = summarize(whole)
    for each in (status, summarize(replace(whole, previous=status))):
        assert len(json.dumps(each, ensure_ascii=False).encode()) < 102_000


def _everything_measured(text: str) -> dict[str, Any]:
    """Return as many classes, inputs and changes as there can be, each with a long text."""
    names = [f"class-{number}" for number in range(MAX_CLASSES)]
    slo = Slo.model_validate({"classes": [{"name": name, "ttft": "1s"} for name in names]})
    decision = a_decision(
        message=text,
        infeasible=dict.fromkeys(names, text),
        inputs={f"an input with a name and a unit, {number}": value(1.5) for number in range(30)},
    )
    changes = tuple(a_change(number, number + 1, message=text) for number in range(10))
    metrics = Trouble("metrics", "MetricsUnreachable", text)
    return {
        "slo": slo,
        "scaling": Scaling.model_validate({"max": 1000}),
        "is_measured": True,
        "measured": measured(
            decision=decision, changes=changes, metrics=metrics, classes=tuple(a_class(name) for name in names)
        ),
    }
