"""What `glm local` makes of a number of groups, and what it says of it."""

from pathlib import Path

import pytest

from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.signals import GroupSignals, Signals
from glm_operator.local import scaling
from glm_operator.local.scaling import (
    MAX_CHANGES,
    GroupsChange,
    ScalingView,
    changed,
    groups_to_bring_up,
    indices_after,
    needs_controller,
    newest_arrivals,
)
from unit.operator.operator_builders import a_deployment

OFF = {"enabled": False}
CLASSES = {"classes": [{"name": "chat", "ttft": "1s"}]}


@pytest.mark.parametrize(
    ("spec", "needed"),
    [
        ({}, True),  # the gateway is told which groups there are
        ({"gateway": OFF}, False),
        ({"gateway": OFF, "slo": CLASSES}, True),
        ({"gateway": OFF, "scaling": {"max": 2}}, True),
        ({"gateway": OFF, "scaling": {"mode": "Observe", "max": 2}}, True),
        ({"gateway": OFF, "scaling": {"mode": "Disabled"}}, False),
        ({"gateway": OFF, "scaling": {"mode": "External"}}, False),
        ({"gateway": OFF, "reasoning": {"visibility": "Hidden"}}, True),
        ({"gateway": OFF, "access": {"trustProxyHeaders": True}}, True),
        ({"gateway": OFF, "reasoning": {}, "access": {}}, False),
    ],
)
def test_a_controller_stays_where_there_is_a_gateway_or_something_is_scaled_promised_or_told(
    spec: dict[str, object], needed: bool
) -> None:
    assert needs_controller(a_deployment(**spec).spec) is needed


@pytest.mark.parametrize(
    ("spec", "running", "groups"),
    [
        ({"scaling": {"min": 0, "max": 4}}, None, 1),
        ({"scaling": {"min": 0, "max": 4}}, 0, 0),
        ({"scaling": {"min": 0, "max": 4}}, 2, 2),
        ({"scaling": {"min": 2, "max": 4}}, None, 2),
        ({"replicas": 3}, 1, 3),
        ({"scaling": {"max": 4}}, 3, 3),
        ({"scaling": {"max": 4}}, 0, 1),
        ({"scaling": {"max": 2}}, 3, 2),
        ({"scaling": {"min": 2, "max": 4}}, 0, 2),
        ({"scaling": {"max": 4}, "replicas": 0}, 2, 0),
        ({"scaling": {"mode": "Observe", "max": 4}, "replicas": 1}, 3, 1),
    ],
)
def test_up_keeps_the_number_that_the_controller_keeps(
    spec: dict[str, object], running: int | None, groups: int
) -> None:
    assert groups_to_bring_up(a_deployment(**spec).spec, running) == groups


@pytest.mark.parametrize(
    ("members", "taken", "wanted", "load", "after"),
    [
        ([], [], 2, {}, [0, 1]),
        ([0], [0], 3, {}, [0, 1, 2]),
        ([0, 2], [0, 2], 3, {}, [0, 1, 2]),
        ([0], [0, 1], 2, {}, [0, 2]),  # 1 still finishes its requests
        ([0, 1, 2], [0, 1, 2], 1, {0: 5.0, 1: 90.0, 2: 7.0}, [1]),
        ([0, 1, 2], [0, 1, 2], 2, {}, [0, 1]),
        ([0, 1], [0, 1], 0, {}, []),
    ],
)
def test_newcomers_take_the_lowest_free_index_and_the_least_loaded_goes(
    members: list[int], taken: list[int], wanted: int, load: dict[int, float], after: list[int]
) -> None:
    assert indices_after(members, taken, wanted, load) == after


def test_the_newest_changes_are_kept_with_what_they_were_for() -> None:
    decision = Decision(desired=2, wanted=2, current=1, starting=0, cause="Demand", message="1.8 groups needed")
    history: list[GroupsChange] = []
    for _ in range(MAX_CHANGES + 3):
        history = changed(history, decision, 0.0)
    assert len(history) == MAX_CHANGES
    assert history[0] == GroupsChange(
        time="1970-01-01T00:00:00Z", before=1, after=2, reason="Demand", message="1.8 groups needed"
    )


def test_what_was_written_is_read_and_what_is_damaged_is_nothing(tmp_path: Path) -> None:
    view = ScalingView(mode="Active", desired=2, current=1, starting=1, message="m", attainment={"chat": None})
    path = tmp_path / "scaling.json"
    assert scaling.read(path) is None
    scaling.write(path, view)
    assert scaling.read(path) == view
    path.write_text("{")
    assert scaling.read(path) is None


def with_arrivals(**lately: float | None) -> Signals:
    """Return groups of which 3 requests a second came over the window, and so many over the newest samples."""
    groups = {
        name: GroupSignals(
            group=name,
            revision="r1",
            at_s=0.0,
            arrivals=3.0,
            prompt_tokens_arriving=60.0,
            arrivals_lately=rate,
            prompt_tokens_arriving_lately=None if rate is None else 20.0 * rate,
            tokens_generated=9.0,
        )
        for name, rate in lately.items()
    }
    return Signals(groups=groups, expected=frozenset(groups))


def test_arrivals_that_become_fewer_are_those_of_the_newest_samples() -> None:
    found = newest_arrivals(with_arrivals(over=0.0, begun=5.0, unseen=None)).groups
    assert {name: (each.arrivals, each.prompt_tokens_arriving) for name, each in found.items()} == {
        "over": (0.0, 0.0),
        "begun": (5.0, 100.0),
        "unseen": (3.0, 60.0),
    }
    assert {each.tokens_generated for each in found.values()} == {9.0}


def test_arrivals_that_become_more_are_the_laws_to_judge() -> None:
    """15 s show more than 45 s every other time; taken as they were, they ordered three groups an hour by chance."""
    signals = with_arrivals(over=2.0, begun=4.5, unseen=None)
    assert newest_arrivals(signals) is signals
