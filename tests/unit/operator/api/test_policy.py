"""What may be said of thinking and of whom to believe, and what reaches the workers of it."""

from typing import Any

import pytest

from glm_operator.api.policy import MAX_ROLES, Policy
from glm_operator.api.spec import InvalidSpec, parse_deployment
from glm_operator.render import group_template, revision_of
from unit.operator.operator_builders import a_body, a_deployment, a_layout

GATEWAY = {"trustProxyHeaders": True}


def refusal(reasoning: object, access: object = None) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_deployment(a_body(reasoning=reasoning, access=access))
    return str(caught.value)


@pytest.mark.parametrize("spec", [{}, {"reasoning": {}}, {"access": {}}, {"reasoning": None, "access": None}])
def test_who_says_nothing_asks_for_the_defaults(spec: dict[str, Any]) -> None:
    policy = a_deployment(**spec).spec.policy
    assert policy.is_default
    assert policy.for_workers() == {
        "reasoning": {
            "default": "template",
            "auto_threshold": 0.5,
            "max_thinking_tokens": None,
            "effort_tokens": {},
            "visibility": "visible",
            "visible_to": [],
            "fields": "reasoning_content",
        },
        "trust_proxy_headers": False,
    }


def test_workers_get_what_is_said_in_their_words() -> None:
    reasoning = {
        "default": "Auto",
        "autoThreshold": 1,
        "maxThinkingTokens": 8192,
        "effortTokens": {"low": 1024, "xhigh": 65536},
        "visibility": "ByRole",
        "visibleTo": ["developer", "ops@eu"],
        "fields": "Both",
    }
    policy = a_deployment(reasoning=reasoning, access=GATEWAY).spec.policy
    assert not policy.is_default
    assert policy.for_workers() == {
        "reasoning": {
            "default": "auto",
            "auto_threshold": 1.0,
            "max_thinking_tokens": 8192,
            "effort_tokens": {"low": 1024, "xhigh": 65536},
            "visibility": "by_role",
            "visible_to": ["developer", "ops@eu"],
            "fields": "both",
        },
        "trust_proxy_headers": True,
    }


@pytest.mark.parametrize(
    ("reasoning", "access", "said"),
    [
        ({"default": "auto"}, None, "spec.reasoning.default is 'auto'"),
        ({"autoThreshold": 1.5}, None, "spec.reasoning.autoThreshold is 1.5"),
        ({"autoThreshold": "0.5"}, None, "spec.reasoning.autoThreshold is '0.5'"),
        ({"maxThinkingTokens": 0}, None, "spec.reasoning.maxThinkingTokens is 0"),
        ({"effortTokens": {"low": 0}}, None, "spec.reasoning.effortTokens.low is 0"),
        ({"effortTokens": {"none": 5}}, None, "spec.reasoning.effortTokens.none is not a known field"),
        ({"visibility": "ByRole"}, GATEWAY, "visibility ByRole needs visibleTo, the roles that are shown reasoning"),
        ({"visibleTo": ["dev"]}, GATEWAY, "visibleTo is for visibility ByRole; visibility is Visible"),
        ({"visibility": "ByRole", "visibleTo": ["dev", "dev"]}, GATEWAY, "visibleTo has dev twice"),
        ({"visibility": "ByRole", "visibleTo": ["a dev"]}, GATEWAY, "allowed is letters, digits and . _ : / @ -"),
        ({"visibility": "ByRole", "visibleTo": [f"r{n}" for n in range(MAX_ROLES + 1)]}, GATEWAY, "at most 32 items"),
        (
            {"visibility": "ByRole", "visibleTo": ["dev"]},
            None,
            "visibility ByRole needs access.auth",
        ),
        (None, {"trustProxyHeaders": "yes"}, "spec.access.trustProxyHeaders is 'yes'"),
        (None, {"trustedHeaders": True}, "spec.access.trustedHeaders is not a known field"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(reasoning: object, access: object, said: str) -> None:
    assert said in refusal(reasoning, access)


def test_a_policy_is_no_part_of_what_a_group_is_made_from() -> None:
    said = a_deployment(reasoning={"default": "Auto", "visibility": "Hidden"}, access=GATEWAY)
    plain = a_deployment()
    assert said.spec.normal_form() == plain.spec.normal_form()
    assert revision_of(group_template(said, a_layout(said))) == revision_of(group_template(plain, a_layout(plain)))


def test_both_parts_are_read_together() -> None:
    assert Policy.model_validate({"access": GATEWAY}).for_workers()["trust_proxy_headers"] is True
