"""What the status says of settings that workers do not know."""

from typing import Any

import pytest

from glm_operator.status.events import transitions
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import moving_to, observed
from unit.operator.status_builders import a_report, conditions, facts, message

KNOWS = a_report("serving", unknown_settings=[])
IGNORES = a_report("serving", unknown_settings=["GLM_DTYPE", "GLM_LOOK_AHEAD"])
BEFORE = a_report("serving")  # of the version before, which does not say


def status(*reports: Any, **changes: Any) -> dict[str, Any]:
    return summarize(
        facts(**{"reports": {f"chat-g{index}": report for index, report in enumerate(reports)}, **changes})
    )


def said(*reports: Any, **changes: Any) -> tuple[str, str, str]:
    found = status(*reports, **changes)
    return (*conditions(found)["SettingsKnown"], message(found, "SettingsKnown"))


def test_workers_that_know_all_settings_are_named() -> None:
    assert said(KNOWS, KNOWS) == ("True", "SettingsTaken", "chat-g0, chat-g1: all settings are known")


def test_a_worker_that_ignores_settings_is_named_with_them() -> None:
    words = "chat-g1 ignores GLM_DTYPE, GLM_LOOK_AHEAD: not known to its worker image"
    assert said(KNOWS, IGNORES) == ("False", "SettingsIgnored", words)
    assert said(BEFORE, IGNORES) == ("False", "SettingsIgnored", words)
    assert said(KNOWS, a_report("starting", unknown_settings=["GLM_X"]))[1] == "SettingsIgnored", "it need not serve"


def test_of_a_worker_that_does_not_say_nothing_is_claimed() -> None:
    words = "chat-g1: the worker image is of an older version, which does not say"
    assert said(KNOWS, BEFORE) == ("Unknown", "SettingsUnheard", words)


def test_without_a_group_or_before_all_were_heard_nothing_is_claimed() -> None:
    none = status(target=moving_to(replicas=0), observed=observed())
    assert conditions(none)["SettingsKnown"] == ("Unknown", "ScaledToZero")
    assert said(previous=none) == ("Unknown", "SettingsUnheard", "not heard yet: chat-g0, chat-g1")
    assert said(KNOWS) == ("Unknown", "SettingsUnheard", "not heard yet: chat-g1")


@pytest.mark.parametrize("reports", [(KNOWS, IGNORES), (KNOWS, KNOWS)])
def test_what_was_known_stands_until_all_groups_are_heard_again(reports: tuple[Any, ...]) -> None:
    """So that a group that starts again is no news."""
    before = status(*reports)
    assert said(KNOWS, previous=before)[:2] == conditions(before)["SettingsKnown"]
    assert transitions(before, status(KNOWS, previous=before)) == []


def test_of_another_spec_nothing_stands() -> None:
    before = status(KNOWS, IGNORES)
    assert said(KNOWS, previous=before, generation=8)[:2] == ("Unknown", "SettingsUnheard")


def test_a_group_that_goes_says_nothing_of_those_that_stay() -> None:
    assert said(KNOWS, KNOWS, IGNORES)[1] == "SettingsTaken"


def test_its_beginning_and_its_end_are_told_and_ready_is_not_touched() -> None:
    good, bad = status(KNOWS, KNOWS), status(KNOWS, IGNORES)
    told = [[event.reason for event in transitions(*pair)] for pair in ((good, bad), (bad, bad), (bad, good))]
    assert told == [["SettingsIgnored"], [], ["SettingsTaken"]]
    assert conditions(bad)["Ready"] == ("True", "AllGroupsReady")
