"""Visibility: deployment, role and request must all allow it."""

from itertools import product
from typing import Any

import pytest

from glm_worker.messages import ReasoningPolicy
from glm_worker.server.thinking.visibility import visible
from glm_worker.server.thinking.wish import (
    ThinkingWish,
    anthropic_thinking,
    include_reasoning,
    openrouter_reasoning,
    zai_thinking,
)

ROLES = (None, "", "developer", "user")
WISHES = {
    "nothing": ThinkingWish(),
    "show": include_reasoning(True),
    "do not exclude": openrouter_reasoning(exclude=False),
    "summarized": anthropic_thinking(display="summarized"),
    "think": zai_thinking(type="enabled"),
    "hide": include_reasoning(False),
    "exclude": openrouter_reasoning(exclude=True),
    "omitted": anthropic_thinking(display="omitted"),
}
POLICIES = [
    ReasoningPolicy(visibility=visibility, visible_to=visible_to)
    for visibility in ("visible", "hidden", "by_role")
    for visible_to in ([], ["developer"], ["developer", "user"], [""])
]

ALL = list(product(POLICIES, ROLES, WISHES))


@pytest.mark.parametrize(("policy", "role", "wish"), ALL)
def test_all_three_must_allow_it(policy: ReasoningPolicy, role: Any, wish: str) -> None:
    by_deployment = policy.visibility != "hidden"
    by_role = policy.visibility != "by_role" or (role is not None and role in policy.visible_to)
    by_request = wish not in ("hide", "exclude", "omitted")
    assert visible(policy, role, WISHES[wish]) == (by_deployment and by_role and by_request)


@pytest.mark.parametrize(("policy", "role", "wish"), ALL)
def test_no_wish_turns_hidden_into_visible(policy: ReasoningPolicy, role: Any, wish: str) -> None:
    assert visible(policy, role, ThinkingWish()) or not visible(policy, role, WISHES[wish])


def test_a_caller_without_a_role_sees_nothing_by_role() -> None:
    policy = ReasoningPolicy(visibility="by_role", visible_to=["developer"])
    assert not visible(policy, None, include_reasoning(True))
    assert not visible(policy, "Developer", ThinkingWish())
    assert visible(policy, "developer", ThinkingWish())
