"""What an answer consists of, as it grows: pieces of reasoning, content and tool calls, free of any wire format."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call begins. Its name is known as a whole; its arguments follow."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """More of the JSON text of call `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely one token of the answer was: of the content of a chat, of the whole text of a completion.

    top: the likeliest tokens in its place, best first, as (id, logprob). Comes before the text that the token adds.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


Delta = Reasoning | Content | ToolCall | ToolArguments | TokenLogprob

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class Call:
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """All deltas of an answer, put together."""

    reasoning: str = ""
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


def assemble(deltas: Iterable[Delta]) -> Answer:
    """Return the answer that these deltas are the stream of."""
    answer = Answer()
    for delta in deltas:
        match delta:
            case Reasoning(text):
                answer.reasoning += text
            case Content(text):
                answer.content += text
            case ToolCall(index, name):
                assert index == len(answer.calls)
                answer.calls.append(Call(name))
            case ToolArguments(index, text):
                answer.calls[index].arguments += text
            case TokenLogprob():
                answer.logprobs.append(delta)
    return answer


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Join neighbours that continue each other: a slow reader gets fewer and longer deltas."""
    result: list[Delta] = []
    for delta in deltas:
        match (result[-1] if result else None), delta:
            case Reasoning(first), Reasoning(second):
                result[-1] = Reasoning(first + second)
            case Content(first), Content(second):
                result[-1] = Content(first + second)
            case ToolArguments(index, first), ToolArguments(same, second) if index == same:
                result[-1] = ToolArguments(index, first + second)
            case _:
                result.append(delta)
    return result
