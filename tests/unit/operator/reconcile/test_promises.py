"""What a spec promises, and who has not heard of it."""

from typing import Any

from glm_operator.observe.report import GroupReport, policy_digest, slo_digest
from glm_operator.reconcile.promises import lack, lack_policy, promises
from unit.operator.operator_builders import a_body, a_group, observed
from unit.operator.status_builders import a_report

CLASSES = {"classes": [{"name": "chat", "ttft": "500ms"}]}


def lacking(slo: dict[str, Any] | None, **reports: GroupReport) -> list[str]:
    said = {f"chat-{name}": report for name, report in reports.items()}
    promised = promises(a_body(**({"slo": slo} if slo is not None else {})))
    return [group.name for group in lack(observed(a_group(0), a_group(1)), said, promised)]


def test_a_spec_that_is_wrong_elsewhere_still_promises_and_scales() -> None:
    found = promises(a_body(slo=CLASSES, scaling={"max": 3}, parallelism={"tensor": -1}))
    assert found.slo is not None
    assert found.scaling is not None
    assert (found.slo.classes[0].name, found.scaling.max_groups) == ("chat", 3)


def test_without_either_nothing_is_promised_and_a_person_scales() -> None:
    found = promises(a_body())
    assert found.slo is not None
    assert (found.slo.classes, found.scaling, found.slo_fault, found.scaling_fault) == ([], None, None, None)


def test_what_cannot_be_read_is_said_and_the_other_counts() -> None:
    found = promises(a_body(slo={"classes": [{"name": "chat"}]}, scaling={"max": 3}))
    assert found.slo is None
    assert found.slo_fault is not None
    assert found.slo_fault.message == "spec.slo.classes.0: class chat promises nothing; give it ttft, ttfa, itl or e2e"
    assert found.scaling is not None


def test_groups_with_other_promises_or_none_are_told() -> None:
    found = promises(a_body(slo=CLASSES)).slo
    assert found is not None
    same = a_report("serving", slo_digest=slo_digest(found.for_workers()))
    assert lacking(CLASSES, g0=same, g1=a_report("starting", slo_digest=None)) == ["chat-g1"]
    assert lacking(CLASSES, g0=a_report("serving", slo_digest="other"), g1=same) == ["chat-g0"]


def test_one_of_an_older_version_that_drains_or_is_not_heard_is_not_told() -> None:
    assert lacking(CLASSES, g0=a_report("serving"), g1=a_report("draining", slo_digest=None)) == []
    assert lacking(CLASSES) == []


def test_no_promise_is_told_to_those_alone_that_had_one() -> None:
    fresh, told = a_report("serving", slo_digest=None), a_report("serving", slo_digest="other")
    assert lacking(None, g0=fresh, g1=told) == ["chat-g1"]


def test_promises_that_cannot_be_read_change_nothing() -> None:
    assert lacking({"classes": 3}, g0=a_report("serving", slo_digest="other")) == []


HIDDEN = {"reasoning": {"visibility": "Hidden"}}


def lacking_policy(spec: dict[str, Any], **reports: GroupReport) -> list[str]:
    said = {f"chat-{name}": report for name, report in reports.items()}
    return [group.name for group in lack_policy(observed(a_group(0), a_group(1)), said, promises(a_body(**spec)))]


def test_a_policy_counts_where_the_rest_of_a_spec_is_wrong() -> None:
    found = promises(a_body(**HIDDEN, parallelism={"tensor": -1}))
    assert found.policy is not None
    assert found.policy.for_workers()["reasoning"] == {
        **found.policy.model_validate({}).for_workers()["reasoning"],  # type: ignore[dict-item]
        "visibility": "hidden",
    }


def test_groups_with_another_policy_or_none_are_told() -> None:
    found = promises(a_body(**HIDDEN)).policy
    assert found is not None
    same = a_report("serving", policy_digest=policy_digest(found.for_workers()))
    assert lacking_policy(HIDDEN, g0=same, g1=a_report("starting", policy_digest=None)) == ["chat-g1"]
    assert lacking_policy(HIDDEN, g0=a_report("serving", policy_digest="other"), g1=same) == ["chat-g0"]


def test_of_a_policy_nobody_is_told_who_cannot_take_it_or_drains() -> None:
    assert lacking_policy(HIDDEN, g0=a_report("serving"), g1=a_report("draining", policy_digest=None)) == []


def test_defaults_are_told_to_those_alone_that_had_something_else() -> None:
    fresh, told = a_report("serving", policy_digest=None), a_report("serving", policy_digest="other")
    assert lacking_policy({}, g0=fresh, g1=told) == ["chat-g1"]


def test_a_policy_that_cannot_be_read_changes_nothing_and_is_said() -> None:
    spec = {"reasoning": {"visibility": "ByRole", "visibleTo": ["dev"]}}
    assert lacking_policy(spec, g0=a_report("serving", policy_digest="other")) == []
    fault = promises(a_body(**spec)).policy_fault
    assert fault is not None
    assert fault.message.startswith("spec: reasoning.visibility ByRole needs access.auth")
    assert promises(a_body(access={"trust": True})).policy_fault.message.startswith("spec.access.trust: ")  # type: ignore[union-attr]
