"""Bounds of the autoscaler that can be, and those that cannot."""

from typing import Any

import pytest

from glm_operator.api.spec import InvalidSpec, parse_deployment
from unit.operator.operator_builders import a_body, a_deployment

WORK = {"name": "work", "cron": "0 8 * * 1-5", "duration": "10h", "min": 2}


def refusal(**scaling: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_deployment(a_body(scaling=scaling))
    return str(caught.value)


def test_without_scaling_a_person_sets_replicas() -> None:
    assert a_deployment().spec.scaling is None


def test_only_max_must_be_given() -> None:
    scaling = a_deployment(scaling={"max": 3}).spec.scaling
    assert scaling is not None
    assert (scaling.mode, scaling.min_groups, scaling.max_groups, scaling.on_missing_metrics) == (
        "Active",
        1,
        3,
        "Fallback",
    )
    assert (scaling.up.stabilization_seconds, scaling.down.stabilization_seconds) == (0, None)


@pytest.mark.parametrize("mode", ["External", "Disabled"])
def test_who_scales_nothing_needs_no_bounds(mode: str) -> None:
    assert a_deployment(scaling={"mode": mode}).spec.scaling is not None


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({}, "mode Active needs max"),
        ({"mode": "Observe"}, "mode Observe needs max"),
        ({"mode": "Off", "max": 2}, "mode is 'Off'"),
        ({"min": 3, "max": 2}, "min 3 is more than max 2"),
        ({"min": -1, "max": 2}, "spec.scaling.min is -1"),
        ({"min": 0, "max": 2, "mode": "External"}, "min 0 needs mode Active or Observe; mode is External"),
        ({"min": 1, "max": 2, "zero": {}}, "zero is for min 0; min is 1"),
        ({"min": 0, "max": 2, "zero": {"idleAfter": "1s"}}, "idleAfter is 1s; allowed is 10s to 30d"),
        ({"min_groups": 1, "max": 2}, "spec.scaling.min_groups is not a known field"),
        ({"max": 2, "targetUtilization": 100}, "targetUtilization is 100"),
        ({"max": 2, "onMissingMetrics": "Zero"}, "onMissingMetrics is 'Zero'"),
        ({"max": 2, "gpuBudget": 0}, "gpuBudget is 0"),
    ],
)
def test_bounds_that_cannot_be_are_refused_with_what_is_allowed(scaling: dict[str, Any], said: str) -> None:
    assert said in refusal(**scaling)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cron": "0 8 * *"}, "allowed is five fields of cron"),
        ({"cron": "0 25 * * *"}, "cron '0 25 * * *' of schedule work cannot be read"),
        ({"timeZone": "Europe/Berlim"}, "timeZone Europe/Berlim of schedule work is unknown"),
        ({"timeZone": "../etc/passwd"}, "allowed is the name of a time zone"),
        ({"duration": "8d"}, "duration 8d of schedule work is not within 1m and 7d"),
        ({"min": None}, "schedule work changes nothing; give it min or max"),
        ({"min": 4, "max": 2}, "min 4 of schedule work is more than its max 2"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_what_is_allowed(change: dict[str, Any], said: str) -> None:
    assert said in refusal(max=8, schedules=[{**WORK, **change}])


def test_a_schedule_asks_for_no_more_groups_than_there_may_be() -> None:
    said = refusal(max=1, schedules=[WORK])
    assert "min 2 of schedule work is more than max 1; give the schedule a max of its own" in said
    assert a_deployment(scaling={"max": 1, "schedules": [{**WORK, "max": 4}]}).spec.scaling is not None


def test_two_schedules_of_one_name_are_refused() -> None:
    assert "schedules work are there twice" in refusal(max=8, schedules=[WORK, WORK])
