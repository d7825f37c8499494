"""Answers in the shapes of the OpenAI API: whole bodies and stream chunks. Values in, dicts out."""

from collections.abc import Sequence
from typing import Any

from glm_worker.server.flights.replies import DONE, Answered, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.refusals import Failure
from glm_worker.server.text.deltas import (
    Answer,
    Content,
    Delta,
    FinishReason,
    Reasoning,
    ToolArguments,
    ToolCall,
    assemble,
    merged,
)

Json = dict[str, Any]


class _Replies:
    """What both endpoints share: heads, usage, the end of a stream."""

    has_reasoning_tokens = False

    def __init__(self, order: Order, head: Json, chunk_object: str) -> None:
        self._order = order
        self._head = head
        self._chunk_object = chunk_object

    def opening(self) -> list[Event]:
        return []  # clients take the first event for the first token

    def closing(self, endings: Sequence[Ending]) -> list[Event]:
        usage = {**self._head, "object": self._chunk_object, "choices": [], "usage": self._usage(endings)}
        return [*([Event(usage)] if self._order.include_usage else []), DONE]

    def failure(self, failure: Failure) -> list[Event]:
        return [Event(error_body(failure))]

    def _usage(self, endings: Sequence[Ending]) -> Json:
        num_prompt, num_answer = self._order.num_prompt_tokens, sum(ending.num_tokens for ending in endings)
        usage: Json = {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_answer,
            "total_tokens": num_prompt + num_answer,
        }
        if self.has_reasoning_tokens:
            num_reasoning = sum(ending.num_reasoning_tokens for ending in endings)
            usage["completion_tokens_details"] = {"reasoning_tokens": num_reasoning}
        return usage


class ChatReplies(_Replies):
    """chat.completion and chat.completion.chunk."""

    has_reasoning_tokens = True

    def __init__(self, order: Order, model: str, created: int) -> None:
        super().__init__(order, {"id": order.id, "created": created, "model": model}, "chat.completion.chunk")
        self._has_begun: set[int] = set()

    def body(self, answers: Sequence[Answered]) -> Json:
        choices = [
            {
                "index": index,
                "message": self._message(index, assemble(deltas)),
                "logprobs": None,
                "finish_reason": ending.reason,
            }
            for index, (deltas, ending) in enumerate(answers)
        ]
        usage = self._usage([ending for _, ending in answers])
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:
        return [*self._begin(index), *(self._chunk(index, self._delta(index, delta)) for delta in merged(deltas))]

    def ending(self, index: int, ending: Ending) -> list[Event]:
        return [*self._begin(index), self._chunk(index, {}, ending.reason)]

    def _begin(self, index: int) -> list[Event]:
        """Return the chunk that names the role, the first time."""
        if index in self._has_begun:
            return []
        self._has_begun.add(index)
        return [self._chunk(index, {"role": "assistant", "content": ""})]

    def _chunk(self, index: int, delta: Json, reason: FinishReason | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "object": self._chunk_object, "choices": [choice]}
        return Event(chunk | {"usage": None} if self._order.include_usage else chunk)

    def _delta(self, index: int, delta: Delta) -> Json:
        match delta:
            case Reasoning(text):
                return {"reasoning_content": text}
            case Content(text):
                return {"content": text}
            case ToolCall(number, name):
                return {"tool_calls": [{"index": number, **self._call(index, number, name, "")}]}
            case ToolArguments(number, text):
                return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}

    def _message(self, index: int, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.content or (None if answer.calls else "")}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [
                self._call(index, number, call.name, call.arguments) for number, call in enumerate(answer.calls)
            ]
        return message

    def _call(self, index: int, number: int, name: str, arguments: str) -> Json:
        answer_id = self._order.jobs[index].id.removeprefix("chatcmpl-")
        return {
            "id": f"call_{answer_id}{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


class CompletionReplies(_Replies):
    """text_completion, whole and in chunks."""

    def __init__(self, order: Order, model: str, created: int) -> None:
        head = {"id": order.id, "object": "text_completion", "created": created, "model": model}
        super().__init__(order, head, "text_completion")

    def body(self, answers: Sequence[Answered]) -> Json:
        choices = [
            self._choice(index, assemble(deltas).content, ending.reason)
            for index, (deltas, ending) in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": self._usage([ending for _, ending in answers])}

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:
        return [self._chunk(index, assemble(deltas).content)]

    def ending(self, index: int, ending: Ending) -> list[Event]:
        return [self._chunk(index, "", ending.reason)]

    def _chunk(self, index: int, text: str, reason: FinishReason | None = None) -> Event:
        chunk = {**self._head, "choices": [self._choice(index, text, reason)]}
        return Event(chunk | {"usage": None} if self._order.include_usage else chunk)

    def _choice(self, index: int, text: str, reason: FinishReason | None) -> Json:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def error_body(failure: Failure) -> Json:
    """Return OpenAI's error object."""
    return {"error": {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}}
