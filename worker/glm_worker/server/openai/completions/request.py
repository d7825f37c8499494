"""The body of a completion, field by field. Everything else is refused by name."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from glm_worker.server.fields import Items, Otherwise, between, conflict
from glm_worker.server.openai.bounds import (
    MAX_ALL_ANSWERS,
    MAX_ANSWERS,
    MAX_COMPLETION_LOGPROBS,
    MAX_PROMPTS,
)
from glm_worker.server.openai.generation import GenerationRequest

Prompts = str | Items[int] | Annotated[Items[str], Field(max_length=MAX_PROMPTS)]
Prompts |= Annotated[Items[Items[int]], Field(max_length=MAX_PROMPTS)]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions"""

    refused: ClassVar[Mapping[str, str]] = {
        **GenerationRequest.refused,
        **dict.fromkeys(
            ("messages", "tools", "response_format", "thinking", "reasoning_effort", "chat_template_kwargs"),
            "chats have it: /v1/chat/completions",
        ),
        **dict.fromkeys(
            ("guided_json", "guided_regex", "guided_choice", "structured_outputs"),
            "answers of chats have a format: /v1/chat/completions",
        ),
    }

    prompt: Annotated[
        Prompts, Otherwise(f"a text, a list of token ids, or a list of at most {MAX_PROMPTS} of one kind of these")
    ] = Field(description="Text or token ids, or several of one kind.")
    best_of: Annotated[int | None, between(1, MAX_ANSWERS)] = Field(None, description="Only n: all are told.")
    echo: bool | None = Field(None, description="Tell the prompt before the answer.")
    suffix: str | None = Field(None, description="What comes after the answer, for models with code tokens.")
    logprobs: Annotated[int | None, between(0, MAX_COMPLETION_LOGPROBS)] = Field(
        None, description="Log probabilities of the tokens of the answer, and of as many that were likeliest."
    )

    @model_validator(mode="after")
    def _no_conflict(self) -> "CompletionRequest":
        if self.best_of not in (None, self.num_answers):
            raise conflict(
                "best_of", f"best_of is {self.best_of} and n is {self.num_answers}; all answers are told, so give n"
            )
        if self.echo and self.logprobs is not None:
            raise conflict("echo", "echo does not go with logprobs: those of the prompt are not computed")
        if self.echo and self.suffix:
            raise conflict("echo", "echo does not go with suffix")
        if len(self.prompts) * self.num_answers > MAX_ALL_ANSWERS:
            raise conflict(
                "n",
                f"{len(self.prompts)} prompts with n {self.num_answers} are {len(self.prompts) * self.num_answers}"
                f" answers; allowed: {MAX_ALL_ANSWERS}",
            )
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several; each a text, or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        several: list[str | list[int]] = [each for each in self.prompt if not isinstance(each, int)]
        return several or [[each for each in self.prompt if isinstance(each, int)]]

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs
