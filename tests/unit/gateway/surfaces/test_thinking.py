"""A gateway knows the mode of a request where its body surely says it, in whatever spelling; and learns the default."""

from typing import Any

import msgspec
import pytest

from glm_gateway.surfaces.ask import read
from glm_gateway.surfaces.thinking import default_in

ASK = {"messages": [{"role": "user", "content": "hi"}]}


def mode(**fields: Any) -> str | None:
    return read(msgspec.json.encode({**ASK, **fields})).mode


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "enabled", "budget_tokens": 5}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "high"},
        {"reasoning": {"enabled": True}},
    ],
)
def test_it_is_switched_on(fields: dict[str, Any]) -> None:
    assert mode(**fields) == "enabled"


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "disabled"}},
        {"thinking": {"budget_tokens": 0}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
        {"reasoning": {"effort": "none"}},
        {"thinking_token_budget": 0},
        {"messages": [{"role": "user", "content": "hi /nothink"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi /nothink "}]}]},
        {"messages": None, "input": "hi /nothink"},
        {"messages": None, "prompt": "2, 3, 5,"},
    ],
)
def test_it_is_switched_off(fields: dict[str, Any]) -> None:
    assert mode(**fields) == "disabled"


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "auto"}},
        {"thinking": {"type": "adaptive"}, "reasoning_effort": "high"},
        {"thinking": {"type": "auto"}, "messages": [{"role": "user", "content": "/nothink"}]},
        {"thinking": {"type": "enabled"}, "chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_it_is_left_to_the_worker(fields: dict[str, Any]) -> None:
    assert mode(**fields) == "auto"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reasoning_effort": "medium"},
        {"thinking": 5, "chat_template_kwargs": [], "reasoning": "high", "reasoning_effort": {}},
        {"thinking": {"budget_tokens": 100}},
        {"thinking_token_budget": False},
        {"messages": [{"role": "assistant", "content": "/nothink"}]},
        {"messages": []},
        {"messages": "text", "input": 5},
    ],
)
def test_it_is_not_said(fields: dict[str, Any]) -> None:
    assert mode(**fields) is None


@pytest.mark.parametrize(
    ("header", "default"),
    [
        ("enabled; by=template", "enabled"),
        ("enabled; by=policy; budget=512", "enabled"),
        ("disabled; by=policy", "disabled"),
        ("enabled; by=request", None),
        ("disabled; by=overload", None),
        ("enabled; by=auto; score=0.71; threshold=0.50", None),
        ("maybe; by=policy", None),
        ("", None),
    ],
)
def test_a_reply_gives_a_default_away(header: str, default: str | None) -> None:
    assert default_in(header) == default
