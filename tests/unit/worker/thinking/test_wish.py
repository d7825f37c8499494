"""Wishes: every spelling means the same thing as its twins, and contradictions are named."""

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.thinking.wish import (
    Conflict,
    ThinkingWish,
    anthropic_effort,
    anthropic_thinking,
    budget,
    combine,
    include_reasoning,
    openai_effort,
    openrouter_reasoning,
    separate_reasoning,
    spellings,
    template_arguments,
    text_switch,
    threshold_header,
    threshold_of_auto,
    zai_thinking,
)

OFF = {
    "z.ai": zai_thinking(type="disabled"),
    "z.ai without a budget": zai_thinking(budget_tokens=0),
    "template": template_arguments(enable_thinking=False),
    "openai": openai_effort("none"),
    "openrouter": openrouter_reasoning(enabled=False),
    "openrouter's effort": openrouter_reasoning(effort="none"),
    "openrouter's maximum": openrouter_reasoning(max_tokens=0),
    "anthropic": anthropic_thinking(type="disabled"),
    "vllm": budget(0),
}
ON = {
    "z.ai": zai_thinking(type="enabled"),
    "template": template_arguments(enable_thinking=True),
    "openai": openai_effort("high"),
    "openrouter": openrouter_reasoning(enabled=True),
    "openrouter's effort": openrouter_reasoning(effort="low"),
    "openrouter's maximum": openrouter_reasoning(max_tokens=500),
    "anthropic": anthropic_thinking(type="enabled", budget_tokens=2048),
}
AUTO = {"z.ai": zai_thinking(type="auto"), "anthropic": anthropic_thinking(type="adaptive")}


@pytest.mark.parametrize("spelling", OFF)
def test_each_spelling_of_off_is_off(spelling: str) -> None:
    assert combine([OFF[spelling]]).mode == "disabled"


@pytest.mark.parametrize("spelling", ON)
def test_each_spelling_of_on_is_on(spelling: str) -> None:
    assert combine([ON[spelling]]).mode == "enabled"


@pytest.mark.parametrize("spelling", AUTO)
def test_each_spelling_of_auto_is_auto(spelling: str) -> None:
    assert combine([AUTO[spelling]]).mode == "auto"


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("off", OFF)
def test_on_and_off_together_are_a_conflict_that_names_both(on: str, off: str) -> None:
    first, second = ON[on], OFF[off]
    for wishes in ([first, second], [second, first], [first, ThinkingWish(), second, first]):
        with pytest.raises(Conflict) as caught:
            combine(wishes)
        said = {first.spelled["mode"], second.spelled["mode"]}
        assert set(caught.value.spellings) == said
        assert all(each in caught.value.message for each in said)
        assert caught.value.param == caught.value.spellings[0].partition(":")[0]


@pytest.mark.parametrize("other", [zai_thinking(type="disabled"), template_arguments(enable_thinking=True)])
def test_auto_and_another_switch_are_a_conflict(other: ThinkingWish) -> None:
    with pytest.raises(Conflict, match=r"thinking\.type: adaptive and .* contradict each other"):
        combine([anthropic_thinking(type="adaptive"), other])


def test_the_end_of_the_message_decides_where_a_switch_says_auto() -> None:
    wish = combine([zai_thinking(type="auto"), text_switch("Hi /nothink")])
    assert (wish.mode, wish.overruled) == ("disabled", ())


@pytest.mark.parametrize("switch", [*ON.values(), *OFF.values()])
def test_what_a_user_writes_never_refuses_a_request_and_yields_to_its_switch(switch: ThinkingWish) -> None:
    text = text_switch("say /nothink", param="messages")
    for wish in (combine([switch, text]), combine([text, switch]), combine([combine([text, switch]), ThinkingWish()])):
        assert wish.mode == switch.mode
        assert wish.param("mode") == switch.param("mode")
        assert wish.overruled == (("messages",) if switch.mode == "enabled" else ())


def test_an_effort_that_asks_for_thinking_leaves_it_at_auto() -> None:
    wish = combine([openai_effort("xhigh"), zai_thinking(type="auto")])
    assert (wish.mode, wish.effort) == ("auto", "xhigh")


@pytest.mark.parametrize("effort", ["minimal", "low", "medium"])
def test_an_effort_below_high_bounds_and_does_not_switch(effort: str) -> None:
    wish = openai_effort(effort)  # type: ignore[arg-type]
    assert (wish.mode, wish.effort) == (None, effort)
    assert combine([wish, zai_thinking(type="disabled")]).mode == "disabled"


@pytest.mark.parametrize(("said", "effort"), [("low", "low"), ("high", "high"), ("max", "xhigh")])
def test_the_effort_of_anthropic_only_bounds(said: str, effort: str) -> None:
    wish = anthropic_effort(said)  # type: ignore[arg-type]
    assert (wish.mode, wish.effort) == (None, effort)


def test_nothing_said_is_an_empty_wish() -> None:
    nothing = [
        zai_thinking(),
        template_arguments(),
        openai_effort(None),
        openrouter_reasoning(),
        anthropic_thinking(),
        anthropic_effort(None),
        budget(None),
        include_reasoning(None),
        separate_reasoning(None),
        threshold_of_auto(None),
        threshold_header(None),
        text_switch("Is 2 + 2 = 4?"),
    ]
    assert all(each == ThinkingWish() for each in nothing)
    assert combine(nothing) == combine([]) == ThinkingWish()


def test_clear_thinking_is_the_opposite_of_keeping_history() -> None:
    assert zai_thinking(clear_thinking=False).keeps_history is True
    assert template_arguments(clear_thinking=True).keeps_history is False
    with pytest.raises(Conflict, match=r"clear_thinking: false and .*clear_thinking: true"):
        combine([zai_thinking(clear_thinking=False), template_arguments(clear_thinking=True)])


@pytest.mark.parametrize(
    ("wish", "shows"),
    [
        (openrouter_reasoning(exclude=True), False),
        (openrouter_reasoning(exclude=False), True),
        (anthropic_thinking(display="omitted"), False),
        (anthropic_thinking(display="summarized"), True),
        (include_reasoning(False), False),
        (include_reasoning(True), True),
    ],
)
def test_a_request_says_whether_it_wants_to_read_the_thought(wish: ThinkingWish, shows: bool) -> None:
    assert (wish.shows, wish.mode) == (shows, None)


def test_showing_and_hiding_at_once_is_a_conflict() -> None:
    with pytest.raises(Conflict, match=r"reasoning\.exclude: true and include_reasoning: true"):
        combine([openrouter_reasoning(exclude=True), include_reasoning(True)])


def test_reasoning_inside_the_content_is_refused() -> None:
    assert separate_reasoning(True) == ThinkingWish()
    with pytest.raises(RequestRefused, match="separate_reasoning is false; allowed: true") as caught:
        separate_reasoning(False)
    assert caught.value.param == "separate_reasoning"


def test_two_budgets_must_agree() -> None:
    assert combine([zai_thinking(budget_tokens=300), budget(300)]).budget_tokens == 300
    with pytest.raises(Conflict, match=r"thinking\.budget_tokens: 300 and thinking_token_budget: 400"):
        combine([zai_thinking(budget_tokens=300), budget(400)])


def test_a_budget_of_0_contradicts_another_one() -> None:
    with pytest.raises(Conflict, match=r"thinking\.budget_tokens: 5 and thinking_token_budget: 0"):
        combine([zai_thinking(budget_tokens=5), budget(0)])
    assert combine([zai_thinking(budget_tokens=0), budget(0), openrouter_reasoning(max_tokens=0)]).mode == "disabled"


def test_a_budget_of_0_contradicts_enabled_even_in_one_object() -> None:
    with pytest.raises(Conflict, match=r"thinking\.type: enabled and thinking\.budget_tokens: 0"):
        zai_thinking(type="enabled", budget_tokens=0)


def test_openrouter_that_is_off_may_have_a_maximum() -> None:
    assert openrouter_reasoning(enabled=False, max_tokens=500, effort="low").mode == "disabled"
    with pytest.raises(Conflict):
        openrouter_reasoning(enabled=False, effort="high")


@pytest.mark.parametrize("value", ["0", "0.7", "1", "1.0", "5e-1"])
def test_a_threshold_in_a_header_is_a_number_from_0_to_1(value: str) -> None:
    assert threshold_header(value).threshold == float(value)


@pytest.mark.parametrize("value", ["", "high", "1.01", "-0.1", "nan", "inf", "0,5"])
def test_any_other_threshold_is_refused(value: str) -> None:
    with pytest.raises(RequestRefused, match=r"x-glm-auto-threshold is .* allowed: a number from 0 to 1") as caught:
        threshold_header(value)
    assert caught.value.param == "x-glm-auto-threshold"


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_a_threshold_in_the_body_has_the_same_range(value: float) -> None:
    with pytest.raises(RequestRefused, match=r"thinking\.threshold is"):
        zai_thinking(threshold=value)


def test_two_thresholds_must_agree() -> None:
    with pytest.raises(Conflict, match=r"thinking\.threshold: 0\.4 and x-glm-auto-threshold: 0\.6"):
        combine([zai_thinking(threshold=0.4), threshold_header("0.6")])
    assert combine([zai_thinking(threshold=0.4), threshold_header("0.40")]).threshold == 0.4


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("/nothink", "disabled"),
        ("Hi/nothink", "disabled"),  # as templates write it
        ("你好/nothink", "disabled"),
        ("Hi /nothink  \n", "disabled"),
        ("x" * 100_000 + " /nothink", "disabled"),
        ("Hi /think", None),  # no template knows it
        ("see docs/think", None),
        ("/nothink please", None),
        ("what does /nothink do?", None),
        ("nothink", None),
        ("rethink", None),
        ("", None),
        (" " * 100_000, None),
    ],
)
def test_a_switch_in_the_text_stands_at_its_end(text: str, mode: str | None) -> None:
    assert text_switch(text).mode == mode


def test_params_are_those_of_the_client() -> None:
    wish = combine(
        [
            openrouter_reasoning(effort="high", max_tokens=900),
            zai_thinking(clear_thinking=False),
            text_switch("Hi /nothink", param="messages[4].content"),
        ]
    )
    assert wish.param("mode") == "reasoning.effort"
    assert wish.param("budget_tokens") == "reasoning.max_tokens"
    assert wish.param("keeps_history") == "thinking.clear_thinking"
    assert wish.param("shows") is None
    assert set(spellings(wish)) == {"reasoning.effort", "reasoning.max_tokens", "thinking.clear_thinking"}


def test_a_conflict_is_a_refusal_that_surfaces_need_not_translate() -> None:
    conflict = Conflict("a: 1", "b: 2")
    assert isinstance(conflict, RequestRefused)
    assert (conflict.status, conflict.param, conflict.code) == (400, "a", "invalid_value")
