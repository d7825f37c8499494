"""Resolution: request before policy before template, the score of auto, budgets, and what the client is told."""

from dataclasses import replace
from typing import Any

import pytest

from glm_worker.messages import ReasoningPolicy
from glm_worker.server.thinking.features import Features, PastTurn, features_of
from glm_worker.server.thinking.overload import NO_OVERLOAD, Overload
from glm_worker.server.thinking.resolve import MAX_BUDGET, Thinking, behind_thought, resolve
from glm_worker.server.thinking.score import score_of
from glm_worker.server.thinking.traits import TemplateTraits
from glm_worker.server.thinking.wish import (
    ThinkingWish,
    budget,
    combine,
    openai_effort,
    text_switch,
    threshold_header,
    zai_thinking,
)

GLM = TemplateTraits()
NO_SWITCH = TemplateTraits(has_switch=False, thinks_by_default=False)
ALWAYS = TemplateTraits(has_switch=False, thinks_by_default=True)
HARD = features_of([PastTurn("user", "Prove that the square root of 2 is irrational, and explain each step.")], 0)
EASY = features_of([PastTurn("user", "hello")], 0)


def not_asked() -> Features:
    raise AssertionError("nobody decides by features here")


def resolved(
    *wishes: ThinkingWish,
    features: Features | None = None,
    traits: TemplateTraits = GLM,
    overload: Overload = NO_OVERLOAD,
    **policy: Any,
) -> Thinking:
    asked = not_asked if features is None else lambda: features
    return resolve(combine(wishes), asked, ReasoningPolicy(**policy), traits, overload)


@pytest.mark.parametrize("default", ["template", "enabled", "disabled", "auto"])
@pytest.mark.parametrize(("said", "enabled"), [("enabled", True), ("disabled", False)])
def test_what_a_request_says_goes_before_every_default(default: str, said: Any, enabled: bool) -> None:
    thinking = resolved(zai_thinking(type=said), default=default)
    assert (thinking.enabled, thinking.by) == (enabled, "request")


@pytest.mark.parametrize(("default", "enabled"), [("enabled", True), ("disabled", False)])
def test_the_policy_goes_before_the_template(default: str, enabled: bool) -> None:
    thinking = resolved(default=default)
    assert (thinking.enabled, thinking.by) == (enabled, "policy")


@pytest.mark.parametrize("thinks", [True, False])
def test_the_template_decides_where_nobody_says_anything(thinks: bool) -> None:
    thinking = resolved(traits=replace(GLM, thinks_by_default=thinks))
    assert (thinking.enabled, thinking.by, thinking.template_variables) == (thinks, "template", {})


@pytest.mark.parametrize("wishes", [(), (zai_thinking(type="auto"),)])
@pytest.mark.parametrize(("features", "enabled"), [(HARD, True), (EASY, False)])
def test_auto_decides_by_the_score_whoever_asks_for_it(wishes: Any, features: Features, enabled: bool) -> None:
    thinking = resolved(*wishes, features=features, default="template" if wishes else "auto")
    assert (thinking.enabled, thinking.by, thinking.threshold) == (enabled, "auto", 0.5)
    assert thinking.score == score_of(features).value
    assert thinking.reasons == score_of(features).reasons
    assert thinking.template_variables == {"enable_thinking": enabled}


def test_a_score_at_the_threshold_thinks_and_one_below_it_does_not() -> None:
    score = score_of(HARD).value
    assert resolved(features=HARD, default="auto", auto_threshold=score).enabled
    assert not resolved(features=HARD, default="auto", auto_threshold=score + 0.001).enabled


def test_the_requests_threshold_goes_before_the_deployments() -> None:
    thinking = resolved(threshold_header("0"), features=EASY, default="auto", auto_threshold=1.0)
    assert (thinking.enabled, thinking.threshold, thinking.ignored) == (True, 0.0, ())


@pytest.mark.parametrize("wish", [zai_thinking(type="enabled", threshold=0.2), zai_thinking(threshold=0.2)])
def test_a_threshold_where_auto_does_not_decide_is_told_to_be_ignored(wish: ThinkingWish) -> None:
    assert resolved(wish).ignored == ("thinking.threshold",)
    assert resolved(combine([threshold_header("1")])).ignored == ("x-glm-auto-threshold",)


@pytest.mark.parametrize(
    ("requested", "maximum", "effort", "in_force"),
    [
        (None, None, None, None),
        (500, None, None, 500),
        (None, 400, None, 400),
        (None, None, "low", 300),
        (500, 400, None, 400),
        (300, 400, None, 300),
        (500, 400, "low", 300),
        (200, 400, "low", 200),
        (500, None, "high", 500),
        (None, None, "minimal", 256),  # ours, where the policy names none for it
        (None, None, "medium", 8192),
        (None, None, "high", 32768),
        (None, None, "xhigh", None),
        (None, 5000, "medium", 5000),
        (1, 1, "low", 1),
    ],
)
def test_the_least_of_all_budgets_is_in_force(
    requested: int | None, maximum: int | None, effort: Any, in_force: int | None
) -> None:
    thinking = resolved(
        zai_thinking(type="enabled"),
        budget(requested),
        openai_effort(effort),
        max_thinking_tokens=maximum,
        effort_tokens={"low": 300},
    )
    assert (thinking.enabled, thinking.budget_tokens) == (True, in_force)


@pytest.mark.parametrize(
    ("wish", "policy"),
    [
        (zai_thinking(type="enabled"), {"max_thinking_tokens": 0}),
        (openai_effort("minimal"), {"effort_tokens": {"minimal": 0}}),
        (zai_thinking(type="enabled", budget_tokens=900), {"max_thinking_tokens": 0}),
    ],
)
def test_a_deployment_that_leaves_no_token_for_thoughts_switches_them_off(wish: ThinkingWish, policy: Any) -> None:
    thinking = resolved(wish, **policy)
    assert (thinking.enabled, thinking.by, thinking.budget_tokens) == (False, "policy", None)


def test_a_thought_that_cannot_be_switched_off_is_closed_at_once() -> None:
    thinking = resolved(traits=ALWAYS, max_thinking_tokens=0)
    assert (thinking.enabled, thinking.budget_tokens) == (True, 0)


def test_no_budget_is_told_where_nothing_is_thought() -> None:
    assert resolved(zai_thinking(type="disabled", budget_tokens=700)).header == "disabled; by=request"


@pytest.mark.parametrize(
    ("wishes", "policy", "ignored"),
    [
        ([zai_thinking(type="disabled", budget_tokens=5)], {}, ("thinking.budget_tokens",)),
        ([zai_thinking(type="disabled"), openai_effort("medium")], {}, ("reasoning_effort",)),
        ([budget(9), openai_effort("low")], {"default": "disabled"}, ("thinking_token_budget", "reasoning_effort")),
        ([budget(9)], {"max_thinking_tokens": 0}, ("thinking_token_budget",)),
        ([zai_thinking(type="auto", budget_tokens=5)], {}, ()),  # it would have bounded a thought
        ([zai_thinking(type="enabled", budget_tokens=5), openai_effort("low")], {}, ()),
    ],
)
def test_bounds_of_a_thought_that_nobody_wanted_are_told_to_be_ignored(
    wishes: list[ThinkingWish], policy: Any, ignored: tuple[str, ...]
) -> None:
    assert resolved(*wishes, features=EASY, **policy).ignored == ignored


def test_a_template_without_thoughts_ignores_an_effort_once() -> None:
    assert resolved(openai_effort("high"), traits=NO_SWITCH).ignored == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("wish", "by", "ignored"),
    [
        (ThinkingWish(), "template", ()),
        (zai_thinking(type="disabled"), "request", ()),
        (zai_thinking(type="enabled", budget_tokens=5), "template", ("thinking.type", "thinking.budget_tokens")),
        (zai_thinking(type="auto", threshold=0.5), "template", ("thinking.type", "thinking.threshold")),
        (openai_effort("high"), "template", ("reasoning_effort",)),
        (zai_thinking(clear_thinking=False), "template", ("thinking.clear_thinking",)),
    ],
)
def test_an_answer_that_has_begun_has_no_thought_and_the_request_is_told(
    wish: ThinkingWish, by: str, ignored: tuple[str, ...]
) -> None:
    thinking = behind_thought(wish, GLM)
    assert (thinking.enabled, thinking.by, thinking.ignored) == (False, by, ignored)


@pytest.mark.parametrize(
    ("traits", "said", "enabled", "ignored"),
    [
        (NO_SWITCH, "enabled", False, ("thinking.type",)),
        (NO_SWITCH, "auto", False, ("thinking.type",)),
        (NO_SWITCH, "disabled", False, ()),
        (NO_SWITCH, None, False, ()),
        (ALWAYS, "disabled", True, ("thinking.type",)),
        (ALWAYS, "enabled", True, ()),
    ],
)
def test_a_template_without_a_switch_decides_and_the_request_is_told(
    traits: TemplateTraits, said: Any, enabled: bool, ignored: tuple[str, ...]
) -> None:
    thinking = resolved(zai_thinking(type=said), traits=traits, default="disabled")
    assert (thinking.enabled, thinking.by, thinking.ignored) == (enabled, "template", ignored)
    assert thinking.template_variables == {}


def test_a_budget_of_0_is_a_switch_and_told_as_one_where_the_template_has_none() -> None:
    wish = zai_thinking(budget_tokens=0)
    assert (resolved(wish).header, resolved(wish).ignored) == ("disabled; by=request", ())
    assert resolved(wish, traits=ALWAYS).header == "enabled; by=template"
    assert resolved(wish, traits=ALWAYS).ignored == ("thinking.budget_tokens",)


def test_the_switch_in_the_text_is_the_requests_wish() -> None:
    thinking = resolved(text_switch("Hi /nothink"), default="enabled")
    assert thinking.header == "disabled; by=request"
    assert thinking.template_variables == {"enable_thinking": False}


def test_what_history_needs_goes_to_the_template() -> None:
    able = replace(GLM, can_keep_history=True)
    thinking = resolved(zai_thinking(clear_thinking=False), traits=able)
    assert (thinking.template_variables, thinking.ignored) == ({"clear_thinking": False}, ())
    assert resolved(zai_thinking(clear_thinking=False)).ignored == ("thinking.clear_thinking",)


@pytest.mark.parametrize(
    ("thinking", "header"),
    [
        (Thinking(enabled=True, by="template"), "enabled; by=template"),
        (Thinking(enabled=False, by="policy"), "disabled; by=policy"),
        (Thinking(enabled=True, by="request", budget_tokens=8192), "enabled; by=request; budget=8192"),
        (
            Thinking(enabled=True, by="auto", score=0.71, threshold=0.5, budget_tokens=8192),
            "enabled; by=auto; score=0.71; threshold=0.50; budget=8192",
        ),
        (
            Thinking(enabled=False, by="auto", score=0.0, threshold=0.125),
            "disabled; by=auto; score=0.00; threshold=0.125",
        ),
        (Thinking(enabled=True, by="auto", score=1.0, threshold=1.0), "enabled; by=auto; score=1.00; threshold=1.00"),
    ],
)
def test_the_header_tells_mode_reason_score_and_budget(thinking: Thinking, header: str) -> None:
    assert thinking.header == header


def test_a_request_cannot_think_longer_than_the_deployment_lets_it() -> None:
    for requested in (None, 1, 99, 100, 101, 10**9):
        for effort in (None, "minimal", "high"):
            thinking = resolved(
                zai_thinking(type="enabled"),
                budget(requested),
                openai_effort(effort),
                max_thinking_tokens=100,  # type: ignore[arg-type]
            )
            assert thinking.budget_tokens is not None
            assert thinking.budget_tokens <= 100


def test_under_overload_auto_asks_no_score_and_tells_nobody_that_its_bounds_are_ignored() -> None:
    wishes = zai_thinking(type="auto", threshold=0.1), budget(300)
    thinking = resolved(*wishes, overload=Overload(auto_thinks=False))
    assert (thinking.enabled, thinking.header, thinking.ignored) == (False, "disabled; by=overload", ())
    assert resolved(zai_thinking(type="enabled"), overload=Overload(auto_thinks=False)).enabled


@pytest.mark.parametrize(("cap", "in_force"), [(10_000_000, 200), (201, 200), (199, 199), (1, 1)])
def test_the_cap_of_overload_lowers_a_budget_and_never_lifts_one(cap: int, in_force: int) -> None:
    thinking = resolved(budget(200), traits=ALWAYS, overload=Overload(max_thinking_tokens=cap))
    assert thinking.budget_tokens == in_force


def test_a_cap_of_none_closes_a_thought_that_cannot_be_switched_off() -> None:
    thinking = resolved(traits=ALWAYS, overload=Overload(max_thinking_tokens=0))
    assert (thinking.enabled, thinking.by, thinking.budget_tokens) == (True, "template", 0)


def test_who_left_no_token_for_a_thought_is_told() -> None:
    nothing = Overload(max_thinking_tokens=0)
    assert resolved(overload=nothing).by == "overload"
    assert resolved(overload=nothing, max_thinking_tokens=0).by == "policy"


def test_a_budget_that_no_message_holds_is_cut() -> None:
    found = resolved(zai_thinking(type="enabled", budget_tokens=10**400))
    assert found.budget_tokens == MAX_BUDGET
