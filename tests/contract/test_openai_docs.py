"""docs/http.md has every parameter of OpenAI's surface, with the bounds that the code has."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from glm_edge.errors.failure import Failure
from glm_edge.errors.zai import error_body
from glm_worker.server.openai import bounds
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.openai.completions.request import CompletionRequest
from glm_worker.server.openai.utilities.tokens import DetokenizeRequest, TokenizeRequest
from glm_worker.server.openai.zai.request import ZaiChatRequest

PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")
CHAT, _, REST = PAGE.partition("\n## Chat completions\n")[2].partition("\n## Completions\n")
TEXT, _, REST = REST.partition("\n## Z.ai\n")
ZAI, _, UTILITIES = REST.partition("\n## Utilities\n")


def named(text: str) -> set[str]:
    """Return what stands between backticks, each word of it."""
    return {word for span in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[A-Za-z_]+", span)}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (ChatCompletionRequest, CHAT),
        (CompletionRequest, TEXT + CHAT),
        (ZaiChatRequest, ZAI + CHAT),
        (TokenizeRequest, UTILITIES + CHAT),
        (DetokenizeRequest, UTILITIES + CHAT),
    ],
)
def test_every_parameter_is_described(model: type[BaseModel], text: str) -> None:
    assert {name for name in model.model_fields if name not in named(text)} == set()


def test_every_field_that_is_refused_with_a_reason_is_described() -> None:
    refused = {name.rpartition(".")[2] for name in ChatCompletionRequest.refused}
    assert refused - {"echo"} <= named(CHAT)


def test_the_bounds_are_those_of_the_code() -> None:
    for bound in (
        bounds.MAX_MESSAGES,
        bounds.MAX_PARTS,
        bounds.MAX_TOOLS,
        bounds.MAX_ANSWERS,
        bounds.MAX_LOGIT_BIAS,
        bounds.MAX_STOP_STRINGS,
        bounds.MAX_STOP_CHARS,
        bounds.MAX_STOP_TOKENS,
        bounds.MAX_BAD_WORDS,
        bounds.MAX_TOP_LOGPROBS,
        bounds.MAX_DEADLINE_S,
        bounds.MAX_METADATA,
    ):
        assert f"{bound:,}" in CHAT
    for bound in (bounds.MAX_ALL_ANSWERS, bounds.MAX_PROMPTS, bounds.MAX_COMPLETION_LOGPROBS):
        assert f"{bound:,}" in TEXT


def test_the_numbers_of_zais_errors_are_those_of_the_code() -> None:
    codes = {
        error_body(Failure(status, "m", "t", param, code))["error"]["code"]
        for status, param, code in (
            (400, None, None),
            (400, "p", None),
            (404, "model", "model_not_found"),
            (400, "model", "chat_not_supported"),
            (400, "p", "missing_required_parameter"),
            (404, None, "not_found"),
            (504, None, "deadline_passed"),
            (400, "p", "context_length_exceeded"),
            (503, None, "overloaded"),
            (500, None, "internal_error"),
        )
    }
    assert codes == set(re.findall(r"`([0-9]+)`", ZAI.partition("| code |")[2]))
