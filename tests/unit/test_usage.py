"""Granted permissions against the audit log."""

from typing import Any

from e2e.usage import unused
from glm_operator.cluster.rbac import Rule

RULES = [
    Rule("apps", "statefulsets", frozenset({"create", "patch", "delete"})),
    Rule("glm-operator.io", "glmdeployments/status", frozenset({"patch"})),
    Rule("", "events", frozenset({"create"})),
]


def an_event(verb: str, resource: str, code: int = 200, **about: str) -> dict[str, Any]:
    return {"verb": verb, "objectRef": {"resource": resource, **about}, "responseStatus": {"code": code}}


STATUS = an_event("patch", "glmdeployments", apiGroup="glm-operator.io", subresource="status")
TOLD = an_event("create", "events", 201)
MADE = an_event("patch", "statefulsets", 201, apiGroup="apps")
CHANGED = an_event("patch", "statefulsets", apiGroup="apps")
DELETED = an_event("delete", "statefulsets", apiGroup="apps")


def test_what_every_request_needed_is_not_unused() -> None:
    assert unused(RULES, [STATUS, TOLD, MADE, DELETED]) == []


def test_a_verb_that_no_request_needed_is_named() -> None:
    assert unused(RULES, [STATUS, MADE, DELETED]) == ["create events (core)"]


def test_an_apply_that_made_nothing_needed_no_create() -> None:
    assert unused(RULES, [STATUS, TOLD, CHANGED, DELETED]) == ["create statefulsets (apps)"]


def test_a_subresource_and_a_group_are_their_own() -> None:
    others = [an_event("patch", "glmdeployments", apiGroup="glm-operator.io"), an_event("delete", "statefulsets")]
    assert unused(RULES, [TOLD, MADE, *others]) == [
        "delete statefulsets (apps)",
        "patch glmdeployments/status (glm-operator.io)",
    ]


def test_a_watch_that_has_only_begun_counts_and_a_request_without_an_object_does_not() -> None:
    watch = {"verb": "watch", "objectRef": {"resource": "pods"}}
    assert unused([Rule("", "pods", frozenset({"watch"}))], [{"verb": "get"}, watch]) == []


def test_what_is_held_for_others_need_not_be_used() -> None:
    held = Rule("discovery.k8s.io", "endpointslices", frozenset({"watch"}), is_for_others=True)
    assert unused([held], [TOLD]) == []
