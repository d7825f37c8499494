"""Thinking of whole chats, as bodies and headers of OpenAI's surface say it and glm-nano's template writes it."""

import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy, ReasoningPolicy
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.intake import chat_order
from unit.worker.server_builders import checkpoint

PROOF = "Prove that the square root of 2 is irrational, and explain each step."


def chat(text: str, headers: dict[str, str] | None = None, policy: Policy | None = None, **fields: Any) -> Order:
    body = {"model": "glm-nano", "messages": [{"role": "user", "content": text}], **fields}
    policy = policy or Policy()
    caller = Caller.of(Headers(headers or {}), policy)
    context = Context(checkpoint=checkpoint(), caller=caller, policy=policy, rules=Rules())
    return chat_order(json.dumps(body).encode(), context)


def prompt_of(order: Order) -> str:
    (job,) = order.jobs
    return b"".join(map(checkpoint().tokenizer.bytes_of, job.prompt_token_ids)).decode()


def by_default(default: Any, **policy: Any) -> Policy:
    return Policy(reasoning=ReasoningPolicy(default=default, **policy))


@pytest.mark.parametrize(("text", "enabled"), [(PROOF, True), ("hello", False)])
def test_auto_writes_what_it_decided_into_the_prompt(text: str, enabled: bool) -> None:
    order = chat(text, thinking={"type": "auto"})
    assert order.headers["x-glm-thinking"].startswith(f"{'enabled' if enabled else 'disabled'}; by=auto; score=")
    assert prompt_of(order).endswith("<think></think>") != enabled


def test_a_header_sets_the_threshold_of_auto() -> None:
    order = chat("hello", {"x-glm-auto-threshold": "0"}, by_default("auto"))
    assert order.thinking is not None
    assert (order.thinking.enabled, order.thinking.threshold) == (True, 0.0)
    assert "x-glm-ignored" not in order.headers


def test_a_header_that_has_no_effect_is_told() -> None:
    assert chat("hello", {"x-glm-auto-threshold": "0.4"}).headers["x-glm-ignored"] == "x-glm-auto-threshold"


def test_a_header_that_is_no_threshold_is_refused() -> None:
    with pytest.raises(RequestRefused, match="x-glm-auto-threshold is 'high'"):
        chat("hello", {"x-glm-auto-threshold": "high"})


def test_the_switch_of_the_user_is_heard_and_stays_in_the_text_once() -> None:
    order = chat(f"{PROOF} /nothink", policy=by_default("auto"))
    assert order.headers["x-glm-thinking"] == "disabled; by=request"
    assert prompt_of(order).count("/nothink") == 1


@pytest.mark.parametrize("switch", [{"thinking": {"type": "enabled"}}, {"reasoning_effort": "high"}])
def test_the_switch_of_the_request_overrules_that_of_the_user_which_is_text_then(switch: dict[str, Any]) -> None:
    order = chat("hello /nothink ", **switch)
    assert order.headers["x-glm-thinking"].startswith("enabled; by=request")
    assert order.headers["x-glm-ignored"] == "messages"
    (job,) = order.jobs
    assert prompt_of(order).count("/nothink") == 1
    assert checkpoint().tokenizer.token_id("/nothink") not in job.prompt_token_ids
    heard = chat("hello /nothink ", thinking={"type": "auto"}).jobs[0]
    assert checkpoint().tokenizer.token_id("/nothink") in heard.prompt_token_ids


def test_a_wish_to_show_a_thought_that_is_hidden_from_the_caller_is_told_to_be_ignored() -> None:
    hidden = Policy(reasoning=ReasoningPolicy(visibility="hidden"))
    assert chat("hello", policy=hidden, include_reasoning=True).headers["x-glm-ignored"] == "include_reasoning"
    assert chat("hello", policy=hidden, reasoning={"exclude": False}).headers["x-glm-ignored"] == "reasoning.exclude"
    assert "x-glm-ignored" not in chat("hello", policy=hidden, include_reasoning=False).headers
    assert "x-glm-ignored" not in chat("hello", include_reasoning=True).headers


def test_a_budget_reaches_the_engine_no_higher_than_the_deployment_lets_it() -> None:
    order = chat("hello", policy=by_default("template", max_thinking_tokens=40), thinking={"budget_tokens": 900})
    (job,) = order.jobs
    assert job.thought is not None
    assert (job.thought.max_tokens, order.headers["x-glm-thinking"]) == (40, "enabled; by=template; budget=40")


def test_glm_nano_tells_that_it_cannot_keep_earlier_thoughts() -> None:
    assert chat("hello", thinking={"clear_thinking": False}).headers["x-glm-ignored"] == "thinking.clear_thinking"


@pytest.mark.parametrize(("role", "shown"), [("developer", True), ("user", False), (None, False)])
def test_a_role_counts_only_from_a_trusted_proxy(role: str | None, shown: bool) -> None:
    reasoning = ReasoningPolicy(visibility="by_role", visible_to=["developer"])
    headers = {} if role is None else {"x-glm-role": role}
    assert chat("hello", headers, Policy(reasoning=reasoning, trust_proxy_headers=True)).shows_reasoning == shown
    assert not chat("hello", headers, Policy(reasoning=reasoning)).shows_reasoning
