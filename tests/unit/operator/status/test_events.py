"""When people are told, and of what."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from glm_operator.observe.observed import Observed, ObservedGroup, Record
from glm_operator.rollout.steps import decide
from glm_operator.status.events import of_acceptance, of_steps, transitions
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed
from unit.operator.status_builders import NOW, REFUSED, TARGET, a_report, a_stuck_group, facts


def test_people_are_told_at_transitions_only() -> None:
    starting = summarize(facts(a_group(0), a_group(1, ready=False)))
    ready = summarize(facts(previous=starting))
    assert [told.reason for told in transitions({}, starting)] == ["LayoutFound"]
    assert [told.reason for told in transitions(starting, ready)] == ["AllGroupsReady"]
    assert transitions(ready, summarize(facts(previous=ready))) == []


def test_a_refused_edit_is_told_once_and_as_a_warning() -> None:
    before = summarize(facts())
    told = transitions(before, summarize(facts(refused=REFUSED, previous=before)))
    assert [(event.reason, event.is_bad) for event in told] == [("LayoutRefused", True)]


def test_trouble_that_is_over_is_told() -> None:
    before = summarize(facts(a_group(0), a_stuck_group()))
    told = transitions(before, summarize(facts(previous=before)))
    assert ("Healthy", False) in [(event.reason, event.is_bad) for event in told]


def rollout(*groups: ObservedGroup, previous: dict[str, Any] | None = None, **policy: Any) -> dict[str, Any]:
    target = moving_to(replicas=len(groups), rollout={"progressDeadlineSeconds": 600, **policy})
    return summarize(facts(*groups, target=target, previous=previous or {}))


ROLLING = rollout(a_group(0), a_group(1, revision="old"))
LATE = NOW - timedelta(hours=1)


def told(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for event in transitions(before, after)]


def test_the_end_of_a_rollout_is_told() -> None:
    assert told(ROLLING, rollout(a_group(0), a_group(1))) == [("RolloutCompleted", "all groups are at revision new")]


def test_a_rollout_whose_last_group_is_down_is_not_complete() -> None:
    after = rollout(a_group(0), a_stuck_group())
    assert "RolloutCompleted" not in dict(told(ROLLING, after))


def test_a_rollout_that_is_held_is_told_and_so_is_its_end_after_that() -> None:
    paused = rollout(a_group(0), a_group(1, revision="old"), paused=True)
    assert told(ROLLING, paused) == [("RolloutPaused", "paused; still to be moved to revision new: chat-g1")]
    assert told(paused, ROLLING) == []
    assert told(paused, rollout(a_group(0), a_group(1))) == [("RolloutCompleted", "all groups are at revision new")]


def test_a_rollout_that_stands_still_is_told_once() -> None:
    stuck = rollout(a_group(0), a_group(1, ready=False, served="old", changed_at=LATE))
    ((reason, message), *others) = told(rollout(a_group(0), a_group(1, ready=False, served="old")), stuck)
    assert reason == "RolloutStuck"
    assert message.startswith("chat-g1 did not become available at revision new within 600 s")
    assert others == []
    assert told(stuck, stuck) == []


def test_loading_is_progress_nobody_is_told_of() -> None:
    before, after = (
        summarize(facts(a_group(0), a_group(1, ready=False), reports={"chat-g1": a_report(load=load)}))
        for load in ({"done_bytes": 1, "total_bytes": 4}, {"done_bytes": 3, "total_bytes": 4})
    )
    assert told(before, after) == []


def events_of(*groups: ObservedGroup) -> list[tuple[str, str]]:
    found = observed(*groups)
    return [(event.reason, event.message) for event in of_steps(decide(TARGET, found, NOW).steps, found)]


def test_a_group_that_is_moved_is_told() -> None:
    moving = a_group(0, revision="old"), a_group(1)
    assert events_of(*moving) == [("GroupMoved", "chat-g0 is moved to revision new")]


def test_a_group_that_goes_is_told_with_why() -> None:
    assert events_of(a_group(0), a_group(1), a_group(2)) == [("ScalingDown", "chat-g2 goes: scaled down")]
    hangs = a_pod("chat-g0", ready=False, is_leaving=True, hangs_since=NOW - timedelta(hours=1))
    assert events_of(a_group(0, pods=(hangs,)), a_group(1)) == [("GroupReplaced", "chat-g0 goes: its node is lost")]


def test_a_step_that_only_keeps_a_group_as_it_is_is_told_to_nobody() -> None:
    assert events_of(a_group(0), a_group(1, ready=False)) == []


def test_a_deployment_that_is_made_is_told_by_its_layout_alone() -> None:
    assert events_of() == []
    assert [reason for reason, _ in told({}, summarize(facts(observed=observed())))] == ["LayoutFound"]


def a_record(number: int, revision: str) -> Record:
    return Record(f"chat-{number}", number, {}, revision, replicas=1)


@pytest.mark.parametrize(
    ("records", "is_adopted", "reason"),
    [
        ([], False, None),
        ([a_record(1, "new")], False, None),
        ([a_record(1, "old")], False, "RolloutStarted"),
        ([a_record(1, "old")], True, "RenderingAdopted"),
        ([a_record(1, "new"), a_record(2, "old")], False, "RolledBack"),
    ],
    ids=["first spec", "same revision", "edit", "adoption", "back to an earlier one"],
)
def test_a_rollout_that_begins_is_told_by_how_it_came_to_be(
    records: list[Record], is_adopted: bool, reason: str | None
) -> None:
    target = replace(TARGET, is_adopted=is_adopted)
    told = of_acceptance(target, Observed(records=tuple(records)))
    assert [event.reason for event in told] == ([reason] if reason else [])
