"""What an answer consists of, as it grows: pieces of reasoning, content and tool calls, free of any wire format."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

import msgspec


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


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """How likely one token of the answer was: of the content of a chat, of the whole text of a completion.

    An answer may keep a hundred thousand, which the collector must not look at: a pass over so many takes 50 ms.

    top: the likeliest tokens in its place, best first, as (id, logprob). Comes before the text that the token adds.
    spelled: all of it as a surface tells it, where one has made that already; top is empty then.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    spelled: object = None


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
    """Return the answer that these deltas are the stream of, in a time that grows with its length alone."""
    reasoning, content, logprobs = list[str](), list[str](), list[TokenLogprob]()
    names, arguments = list[str](), list[list[str]]()
    for delta in deltas:
        match delta:
            case Reasoning(text):
                reasoning.append(text)
            case Content(text):
                content.append(text)
            case ToolCall(index, name):
                assert index == len(names)
                names.append(name)
                arguments.append([])
            case ToolArguments(index, text):
                arguments[index].append(text)
            case TokenLogprob():
                logprobs.append(delta)
    calls = [Call(name, "".join(texts)) for name, texts in zip(names, arguments, strict=True)]
    return Answer("".join(reasoning), "".join(content), calls, logprobs)


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Join neighbours that continue each other: a slow reader gets fewer and longer deltas."""
    return [_joined(list(run)) for _, run in groupby(deltas, _continued)]


def _continued(delta: Delta) -> object:
    """Return what is equal for deltas that continue each other."""
    match delta:
        case Reasoning() | Content():
            return type(delta)
        case ToolArguments(index):
            return index
        case _:
            return object()


def _joined(run: list[Delta]) -> Delta:
    first, *more = run
    if not more or isinstance(first, ToolCall | TokenLogprob):
        return first
    return replace(first, text="".join(delta.text for delta in run if isinstance(delta, type(first))))
