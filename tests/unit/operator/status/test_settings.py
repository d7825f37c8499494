"""What the status says of settings that workers do not know."""

from typing import Any

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
    words = "the worker image is of another version, and ignores chat-g1: GLM_DTYPE, GLM_LOOK_AHEAD"
    assert said(KNOWS, IGNORES) == ("False", "SettingsIgnored", words)
    assert said(BEFORE, IGNORES) == ("False", "SettingsIgnored", words)


def test_of_a_worker_that_does_not_say_nothing_is_claimed() -> None:
    words = "chat-g1: the worker image is of an older version, which does not say"
    assert said(KNOWS, BEFORE) == ("Unknown", "SettingsUnheard", words)


def test_without_a_group_or_before_one_serves_nothing_is_claimed() -> None:
    assert said(target=moving_to(replicas=0), observed=observed())[:2] == ("Unknown", "ScaledToZero")
    assert said(a_report("starting", unknown_settings=["GLM_X"]))[:2] == ("Unknown", "SettingsUnheard")


def test_what_was_known_stands_until_a_group_is_heard_again() -> None:
    before = status(KNOWS, IGNORES)
    assert said(previous=before)[:2] == ("False", "SettingsIgnored")


def test_its_beginning_and_its_end_are_told_and_ready_is_not_touched() -> None:
    good, bad = status(KNOWS, KNOWS), status(KNOWS, IGNORES)
    told = [[event.reason for event in transitions(*pair)] for pair in ((good, bad), (bad, bad), (bad, good))]
    assert told == [["SettingsIgnored"], [], ["SettingsTaken"]]
    assert conditions(bad)["Ready"] == ("True", "AllGroupsReady")
