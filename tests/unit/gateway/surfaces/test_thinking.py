"""A gateway knows whether a request thinks where its body surely says so, in whatever spelling."""

from typing import Any

import msgspec
import pytest

from glm_gateway.surfaces.ask import read

ASK = {"messages": [{"role": "user", "content": "hi"}]}


def thinks(**fields: Any) -> bool | None:
    return read(msgspec.json.encode({**ASK, **fields})).thinks


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
    assert thinks(**fields) is True


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
    assert thinks(**fields) is False


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"thinking": {"type": "auto"}},
        {"thinking": {"type": "adaptive"}, "reasoning_effort": "high"},
        {"thinking": {"type": "auto"}, "messages": [{"role": "user", "content": "/nothink"}]},
        {"reasoning_effort": "medium"},
        {"thinking": {"type": "enabled"}, "chat_template_kwargs": {"enable_thinking": False}},
        {"thinking": 5, "chat_template_kwargs": [], "reasoning": "high", "reasoning_effort": {}},
        {"thinking_token_budget": False},
        {"messages": [{"role": "assistant", "content": "/nothink"}]},
        {"messages": []},
        {"messages": "text", "input": 5},
    ],
)
def test_it_is_left_to_the_worker(fields: dict[str, Any]) -> None:
    assert thinks(**fields) is None
