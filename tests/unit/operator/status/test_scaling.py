"""What the status says of decisions."""

from dataclasses import replace
from typing import Any

import pytest

from glm_operator.api.scaling import Scaling
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.signals import Input, State
from glm_operator.status.summary import summarize
from unit.operator.measured_builders import NO_SERIES, NOW_S, a_change, a_decision, measured, value
from unit.operator.operator_builders import moving_to, observed
from unit.operator.status_builders import conditions, facts

SCALING = Scaling.model_validate({"min": 1, "max": 4})
MISSING = Trouble("metrics", "MetricsMissing", "no group serves yet")


def status(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {"scaling": SCALING, "is_measured": True, "measured": measured()}
    return summarize(facts(**{**whole, **changes}))


def test_a_decision_is_said_with_what_it_rests_on() -> None:
    inputs = {"work (groups)": value(2.437), "kv": Input(State.IDLE, 0.0, NOW_S), "oldest (s)": Input(State.UNKNOWN)}
    decision = a_decision(4, 2, starting=1, limited_by="Max", inputs=inputs)
    said = status(measured=measured(decision=decision, changes=(a_change(),)))["scaling"]
    at = "2026-01-02T03:04:05Z"
    assert said == {
        "mode": "Active",
        "desired": 4,
        "current": 2,
        "starting": 1,
        "limitedBy": "Max",
        "message": "1.4 groups of work",
        "source": "Prometheus",
        "lastScaleTime": at,
        "lastScale": "1 -> 3: 2.4 groups of work",
        "signals": [
            {"name": "work (groups)", "state": "Value", "value": "2.44", "measuredAt": at},
            {"name": "kv", "state": "Idle", "measuredAt": at},
            {"name": "oldest (s)", "state": "Unknown"},
        ],
        "history": [{"time": at, "from": 1, "to": 3, "reason": "Demand", "message": "2.4 groups of work"}],
    }


def test_history_outlives_the_operator_and_has_ten_entries() -> None:
    old = tuple(a_change(index, index + 1, at_s=NOW_S - 100 * index) for index in range(1, 9))
    before = status(measured=measured(changes=old))
    new = tuple(a_change(index, index + 1, at_s=NOW_S + 100 * index) for index in (5, 4, 3, 2))
    said = status(measured=measured(changes=new), previous=before)["scaling"]
    assert len(said["history"]) == 10
    assert [entry["from"] for entry in said["history"]] == [5, 4, 3, 2, 1, 2, 3, 4, 5, 6]
    again = status(measured=measured(changes=new), previous=status(measured=measured(changes=new), previous=before))
    assert again["scaling"] == said


def test_before_its_first_look_an_operator_says_what_was_said_before_it() -> None:
    before = status(measured=measured(changes=(a_change(),)))
    assert status(measured=None, previous=before)["scaling"] == before["scaling"]


def test_what_a_person_or_an_observer_did_is_history_and_no_last_scale() -> None:
    by_hand = a_change(3, 5, reason="ScaledByHand", is_done=False, at_s=NOW_S + 10)
    before = status(measured=measured(changes=(a_change(),)))
    said = status(measured=measured(changes=(by_hand,)), previous=before)["scaling"]
    assert [entry["reason"] for entry in said["history"]] == ["ScaledByHand", "Demand"]
    assert said["lastScale"] == "1 -> 3: 2.4 groups of work"


def test_without_scaling_nothing_is_said_of_it() -> None:
    said = status(scaling=None, measured=measured(mode="Disabled", decision=None))
    assert "scaling" not in said
    assert conditions(said)["ScalingActive"] == ("False", "ScalingDisabled")


REFUSED = Trouble("scale", "ScaleRefused", "glmdeployments/scale is forbidden")
HELD = measured(metrics=NO_SERIES, source=None)
FELL_BACK = measured(metrics=Trouble("metrics", "NoSeries", "none; asks"), source="Workers")


@pytest.mark.parametrize(
    ("mode", "seen", "said"),
    [
        ("Active", measured(), ("True", "ScalingByLoad")),
        ("Active", measured(refused=REFUSED), ("False", "ScaleRefused")),
        ("Active", HELD, ("False", "NoSeries")),
        ("Active", FELL_BACK, ("True", "ScalingByLoad")),
        ("Active", None, ("Unknown", "MetricsMissing")),
        ("Observe", measured(), ("False", "ScalingObserving")),
        ("External", measured(), ("False", "ScalingExternal")),
        ("Disabled", measured(), ("False", "ScalingDisabled")),
    ],
)
def test_it_is_said_who_sets_the_number_of_groups(mode: str, seen: Any, said: tuple[str, str]) -> None:
    scaling = Scaling.model_validate({"mode": mode, "max": 4})
    found = status(scaling=scaling, measured=replace(seen, mode=mode) if seen else None)
    assert conditions(found)["ScalingActive"] == said


@pytest.mark.parametrize(("is_blind", "said"), [(True, ("False", "MetricsStale")), (False, ("True", "ScalingByLoad"))])
def test_scaling_is_held_while_nothing_fresh_is_known_and_goes_on_while_some_is(
    is_blind: bool, said: tuple[str, str]
) -> None:
    stale = Trouble("metrics", "MetricsStale", "Prometheus: samples of chat-0, chat-1 are too old")
    seen = measured(metrics=stale, decision=a_decision(limited_by="MissingMetrics", is_blind=is_blind))

    assert conditions(status(measured=seen))["ScalingActive"] == said


def test_the_bounds_that_are_told_are_those_of_the_schedule_that_is_open() -> None:
    seen = measured(decision=a_decision(least=8, most=12, scheduled=("morning",)))

    (said,) = (each for each in status(measured=seen)["conditions"] if each["type"] == "ScalingActive")

    assert said["message"] == "the operator sets spec.replicas within 8 and 12 (schedule morning)"


def test_zero_groups_switch_it_off() -> None:
    said = status(target=moving_to(replicas=0), observed=observed(), measured=measured(decision=None))
    assert conditions(said)["ScalingActive"] == ("False", "ScaledToZero")


def test_zero_groups_that_may_be_switch_nothing_off() -> None:
    may_be = Scaling.model_validate({"min": 0, "max": 4})
    seen = measured(decision=a_decision(0, 0, least=0, most=4, cause="Idle"), source=None, metrics=MISSING)

    said = status(target=moving_to(replicas=0), observed=observed(), scaling=may_be, measured=seen)

    assert conditions(said)["ScalingActive"] == ("True", "ScalingByLoad")


@pytest.mark.parametrize("limit", ["NoGateway", "GatewayUnknown"])
def test_a_group_that_stays_because_nobody_would_hear_of_a_request_is_said_so(limit: str) -> None:
    seen = measured(decision=a_decision(1, 1, limited_by=limit, message="gateway a does not say what it is asked"))

    (said,) = (each for each in status(measured=seen)["conditions"] if each["type"] == "ScalingActive")

    assert (said["status"], said["reason"]) == ("True", "DemandUnknown")
    assert said["message"] == "gateway a does not say what it is asked"


def test_scaling_that_cannot_be_read_says_so() -> None:
    fault = Trouble("scaling", "InvalidSpec", "spec.scaling: mode Active needs max")
    assert conditions(status(scaling=None, scaling_fault=fault))["ScalingActive"] == ("False", "InvalidSpec")
