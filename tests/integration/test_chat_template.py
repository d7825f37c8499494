"""Our rendering of a chat template against transformers': the same prompt, token by token."""

from typing import Any

import pytest

from glm_worker.models import resolve
from glm_worker.server.checkpoint import Checkpoint

FOLDER = resolve("builtin://glm-nano")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter für <Orte>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "default": None}}},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": [1, 2]}}}
USER = {"role": "user", "content": "Wie ist das Wetter? <b>"}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one question": [USER],
    "a system message": [{"role": "system", "content": "Be brief."}, USER],
    "an answer with reasoning": [USER, {"role": "assistant", "reasoning_content": "hm", "content": "gut"}, USER],
    "a call and its result": [
        USER,
        {"role": "assistant", "reasoning_content": "ask", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "12"},
        {"role": "tool", "content": "13"},
    ],
}


@pytest.fixture(scope="module")
def oracle() -> Any:
    from transformers import AutoTokenizer  # seconds of imports, for this module only

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("tools", [[], [TOOL]])
@pytest.mark.parametrize("thinking", [None, True, False])
def test_prompts_are_those_of_transformers(
    oracle: Any, conversation: str, tools: list[Any], thinking: bool | None
) -> None:
    checkpoint = Checkpoint.read(FOLDER, name="", max_model_len=0)
    messages = CONVERSATIONS[conversation]
    prompt = checkpoint.template.render(messages, tools, {"enable_thinking": thinking})
    switch = {} if thinking is None else {"enable_thinking": thinking}
    expected = oracle.apply_chat_template(
        messages, tools=tools or None, add_generation_prompt=True, tokenize=False, **switch
    )
    assert prompt == expected
    assert checkpoint.tokenizer.encode(prompt) == oracle(expected, add_special_tokens=False)["input_ids"]
