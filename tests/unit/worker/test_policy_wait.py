"""How long a group that is to be told a policy waits for it."""

import logging

import pytest

from glm_worker.supervisor.told.policy_wait import LIMIT_S, PolicyWait


def test_a_group_that_nobody_will_tell_waits_for_nothing() -> None:
    wait = PolicyWait(is_on=False)
    wait.begin(0.0)
    assert not wait.holds(0.0)


def test_the_wait_counts_from_when_requests_could_be_taken_and_has_an_end() -> None:
    wait = PolicyWait(is_on=True)
    assert not wait.holds(0.0), "it is not ready for other reasons"
    wait.begin(100.0)
    assert wait.holds(100.0 + LIMIT_S - 0.1)
    assert not wait.holds(100.0 + LIMIT_S)
    assert wait.is_on, "it still shows reasoning to nobody"


def test_who_is_told_waits_no_more() -> None:
    wait = PolicyWait(is_on=True)
    wait.begin(100.0)
    wait.end()
    assert (wait.holds(100.1), wait.is_on) == (False, False)


def test_a_group_that_starts_again_untold_does_not_wait_again() -> None:
    wait = PolicyWait(is_on=True)
    wait.begin(100.0)
    wait.begin(100.0 + LIMIT_S + 1)
    assert not wait.holds(100.0 + LIMIT_S + 1)


def test_that_nobody_told_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wait = PolicyWait(is_on=True)
    with caplog.at_level(logging.WARNING):
        wait.look(1000.0)
        wait.begin(1000.0)
        wait.look(1001.0)
        assert not caplog.records
        wait.look(1000.0 + LIMIT_S)
        wait.look(1001.0 + LIMIT_S)
    (record,) = caplog.records
    assert "shows reasoning to nobody" in record.message
