"""What a group says, as far as the operator reads it."""

from glm_operator.observe.report import GroupReport, slo_digest


def test_a_worker_of_the_version_before_takes_no_promises_and_one_that_has_none_does() -> None:
    before = GroupReport.model_validate({"state": "serving"})
    fresh = GroupReport.model_validate({"state": "serving", "slo_digest": None})
    assert (before.takes_slo, before.slo_digest) == (False, None)
    assert (fresh.takes_slo, fresh.slo_digest) == (True, None)
    assert GroupReport.model_validate({"state": "serving", "slo_digest": "0" * 16}).slo_digest == "0" * 16


def test_the_digest_of_promises_does_not_depend_on_the_order_of_their_keys() -> None:
    assert slo_digest({"classes": [{"name": "a", "objective": 0.9}]}) == slo_digest(
        {"classes": [{"objective": 0.9, "name": "a"}]}
    )
    assert slo_digest({"classes": []}) != slo_digest({"classes": [{"name": "a"}]})


def test_a_worker_of_the_version_before_takes_no_policy() -> None:
    before = GroupReport.model_validate({"state": "serving", "slo_digest": None})
    fresh = GroupReport.model_validate({"state": "serving", "policy_digest": None})
    assert (before.takes_policy, fresh.takes_policy, fresh.policy_digest) == (False, True, None)
