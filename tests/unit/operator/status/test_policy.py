"""What the status says of the policy of requests."""

from typing import Any

import pytest

from glm_operator.api.policy import Policy
from glm_operator.api.trouble import Trouble
from glm_operator.observe.report import policy_digest
from glm_operator.status.events import transitions
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import moving_to, observed
from unit.operator.status_builders import a_report, conditions, facts, message

HIDDEN = Policy.model_validate({"reasoning": {"visibility": "Hidden"}})
HAS = a_report("serving", policy_digest=policy_digest(HIDDEN.for_workers()))
OTHER = a_report("serving", policy_digest="0" * 16)
FRESH = a_report("serving", policy_digest=None)
BEFORE = a_report("serving")  # of the version before


def status(*reports: Any, policy: Policy | None = HIDDEN, **changes: Any) -> dict[str, Any]:
    said = {f"chat-g{index}": report for index, report in enumerate(reports)}
    return summarize(facts(**{"policy": policy, "reports": said, **changes}))


def said(*reports: Any, **changes: Any) -> tuple[str, str, str]:
    found = status(*reports, **changes)
    return (*conditions(found)["PolicyApplied"], message(found, "PolicyApplied"))


def test_all_that_serve_have_the_policy() -> None:
    words = "chat-g0, chat-g1: as spec.reasoning and spec.access say"
    assert said(HAS, HAS) == ("True", "PolicyTaken", words)


@pytest.mark.parametrize("report", [HAS, FRESH, BEFORE])
def test_who_asks_for_nothing_has_it_from_workers_of_every_version(report: Any) -> None:
    reports = (report, report) if report is not HAS else (FRESH, BEFORE)
    assert said(*reports, policy=Policy())[:2] == ("True", "PolicyTaken")


def test_workers_of_the_version_before_are_named_and_somebody_has_to_act() -> None:
    words = "chat-g1: the worker image is of an older version, which knows no policy"
    assert said(HAS, BEFORE) == ("False", "PolicyNotTaken", words)


def test_a_worker_that_refuses_is_named_with_its_answer() -> None:
    refused = {"chat-g0": "pod chat-g0-0 refused the policy with 422: no"}
    words = "chat-g0: pod chat-g0-0 refused the policy with 422: no"
    assert said(OTHER, HAS, policy_refused=refused) == ("False", "PolicyNotTaken", words)
    assert said(OTHER, BEFORE, policy_refused=refused)[2] == (
        f"chat-g1: the worker image is of an older version, which knows no policy; {words}"
    )


def test_of_many_refusals_the_first_are_quoted() -> None:
    reports = [OTHER] * 9
    words = said(*reports, policy_refused={f"chat-g{n}": "no " * 200 for n in range(9)})[2]
    assert [f"chat-g{n}: no" in words for n in range(4)] == [True, True, True, False]
    assert words.endswith(" (and 6 more)")


def test_a_worker_that_was_not_told_yet_is_waited_for() -> None:
    assert said(HAS, FRESH) == ("Unknown", "PolicyPending", "not told yet: chat-g1")
    assert said(a_report("starting", policy_digest=None), HAS)[:2] == ("True", "PolicyTaken"), "only who serves counts"


def test_a_default_that_workers_do_not_have_any_more_is_told() -> None:
    assert said(OTHER, FRESH, policy=Policy())[:2] == ("Unknown", "PolicyPending")


def test_without_a_group_or_before_one_serves_nothing_is_claimed() -> None:
    none = {"target": moving_to(replicas=0), "observed": observed()}
    assert said(**none)[:2] == ("Unknown", "ScaledToZero")
    assert said(a_report("starting", policy_digest=None), a_report("starting", policy_digest=None))[:2] == (
        "Unknown",
        "PolicyPending",
    )


def test_an_operator_that_has_just_started_says_what_was_said_before_it() -> None:
    before = status(HAS, HAS)
    assert said(previous=before)[:2] == ("True", "PolicyTaken")
    assert said() == ("Unknown", "PolicyPending", "not heard yet: chat-g0, chat-g1")


def test_a_policy_that_cannot_be_read_says_so_and_changes_nothing() -> None:
    fault = Trouble("policy", "InvalidSpec", "spec.reasoning.visibility: wrong")
    words = "spec.reasoning.visibility: wrong; workers keep what they have"
    assert said(HAS, HAS, policy=None, policy_fault=fault) == ("Unknown", "InvalidSpec", words)


def test_the_beginning_and_the_end_of_a_refusal_are_told_and_ready_is_not_touched() -> None:
    good, bad = status(HAS, HAS), status(HAS, BEFORE)
    told = [[event.reason for event in transitions(*pair)] for pair in ((good, bad), (bad, bad), (bad, good))]
    assert told == [["PolicyNotTaken"], [], ["PolicyTaken"]]
    assert conditions(bad)["Ready"] == ("True", "AllGroupsReady")
    assert conditions(bad)["Degraded"] == ("False", "Healthy")


AWAITING = a_report("serving", policy_digest=None, awaits_policy=True)
LESS = "chat-g1: never told any, so reasoning is hidden from everybody there"


@pytest.mark.parametrize("policy", [HIDDEN, Policy()])
def test_a_worker_that_awaits_its_policy_is_named_whatever_it_is(policy: Policy) -> None:
    has = a_report("serving", policy_digest=policy_digest(policy.for_workers()))
    assert said(has, AWAITING, policy=policy) == ("Unknown", "PolicyPending", f"not told yet: chat-g1; {LESS}")


def test_what_comes_of_it_is_also_said_where_nothing_can_be_told() -> None:
    fault = Trouble("policy", "InvalidSpec", "spec.reasoning.visibility: wrong")
    refused = {"chat-g1": "pod chat-g1-0 refused the policy with 422: no"}
    assert said(HAS, AWAITING, policy=None, policy_fault=fault)[2].endswith(f"; workers keep what they have; {LESS}")
    assert said(HAS, AWAITING, policy_refused=refused)[2] == f"chat-g1: {refused['chat-g1']}; {LESS}"
