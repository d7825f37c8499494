"""What an engine returns, made of the bodies that the server's application answers with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glm_worker.errors import DeadlinePassed, EngineFailed, Overloaded, RequestRefused

Json = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Tokens. cached_tokens: of the prompt, that were not computed again; reasoning_tokens: of the completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True)
class ToolCall:
    """One call. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Choice:
    """One answer. finish_reason: stop, length or tool_calls."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str


@dataclass(frozen=True)
class Result:
    """All answers to one request. body: the whole reply, as OpenAI's API has it, with logprobs and the like."""

    choices: tuple[Choice, ...]
    usage: Usage
    body: Json

    @property
    def text(self) -> str:
        """Of the first answer, as the next three."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason


@dataclass(frozen=True)
class Piece:
    """What a stream has brought anew. tool_calls: begun or gone on with, as OpenAI's chunks tell them.

    index: of the answer, where several were asked for. usage: in the last piece of all, which has nothing else.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[Json, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None


def result_of(status: int, body: bytes) -> Result:
    """Return the answers in a reply. Raises what the reply says that went wrong."""
    said = json.loads(body)
    if status != 200:
        raise error_of(status, said)
    return Result(tuple(_choice(choice) for choice in said["choices"]), usage_of(said["usage"]), said)


def pieces_of(chunk: Json) -> list[Piece]:
    """Return what a chunk of a stream brings. Raises what it says that went wrong."""
    if "error" in chunk:
        raise error_of(500, chunk)
    if chunk.get("usage") and not chunk["choices"]:
        return [Piece(usage=usage_of(chunk["usage"]))]
    pieces = [
        Piece(
            index=choice["index"],
            text=choice["delta"].get("content") or "",
            reasoning=choice["delta"].get("reasoning_content") or "",
            tool_calls=tuple(choice["delta"].get("tool_calls") or ()),
            finish_reason=choice["finish_reason"],
        )
        for choice in chunk["choices"]
    ]
    return [piece for piece in pieces if piece != Piece(index=piece.index)]  # the first chunk names a role only


def error_of(status: int, said: Json) -> Exception:
    """Return the error that a reply tells of, as the engine's callers know it."""
    error: Mapping[str, Any] = said.get("error", {})
    message, code = str(error.get("message", "the engine answered with nothing")), error.get("code")
    if code == "overloaded":
        return Overloaded(message, retry_after_s=1)
    if code == "deadline_passed":
        passed = DeadlinePassed(0)
        passed.args = (message,)
        return passed
    if error.get("type") == "invalid_request_error":
        return RequestRefused(message, param=error.get("param"), code=code, status=status)
    return EngineFailed(message)


def usage_of(said: Json) -> Usage:
    return Usage(
        prompt_tokens=said["prompt_tokens"],
        completion_tokens=said["completion_tokens"],
        cached_tokens=said["prompt_tokens_details"]["cached_tokens"],
        reasoning_tokens=said["completion_tokens_details"]["reasoning_tokens"],
    )


def _choice(choice: Json) -> Choice:
    message = choice.get("message")
    if message is None:  # of a completion
        return Choice(choice["text"], "", (), choice["finish_reason"])
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
    return Choice(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content") or "",
        tool_calls=tuple(ToolCall(id_, function["name"], function["arguments"]) for id_, function in calls),
        finish_reason=choice["finish_reason"],
    )
