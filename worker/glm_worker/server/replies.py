"""Answers in the shapes of the OpenAI API: whole bodies and stream chunks. Values in, dicts out."""

from collections.abc import Iterable
from typing import Any, Protocol

from glm_worker.server.intake import Job
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
from glm_worker.server.text.output import OutputReader

Json = dict[str, Any]


class Replies(Protocol):
    """One request's answer in the words of its endpoint."""

    def body(self, deltas: Iterable[Delta], reason: FinishReason, reader: OutputReader) -> Json: ...
    def chunks(self, deltas: Iterable[Delta], *, is_first: bool) -> list[Json]: ...
    def last_chunks(self, reason: FinishReason, reader: OutputReader) -> list[Json]: ...


def replies_to(job: Job, model: str, created: int) -> Replies:
    return ChatReplies(job, model, created) if job.is_chat else CompletionReplies(job, model, created)


class ChatReplies:
    """chat.completion and chat.completion.chunk."""

    def __init__(self, job: Job, model: str, created: int) -> None:
        self._job = job
        self._head = {"id": job.id, "created": created, "model": model}

    def body(self, deltas: Iterable[Delta], reason: FinishReason, reader: OutputReader) -> Json:
        choice = {"index": 0, "message": self._message(assemble(deltas)), "logprobs": None, "finish_reason": reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(self._job, reader)}

    def chunks(self, deltas: Iterable[Delta], *, is_first: bool) -> list[Json]:
        head = [self._chunk({"role": "assistant", "content": ""})] if is_first else []
        return head + [self._chunk(self._delta(delta)) for delta in merged(deltas)]

    def last_chunks(self, reason: FinishReason, reader: OutputReader) -> list[Json]:
        chunks = [self._chunk({}, reason)]
        if self._job.include_usage:
            chunks.append({**self._chunk({}), "choices": [], "usage": _usage(self._job, reader)})
        return chunks

    def _chunk(self, delta: Json, reason: FinishReason | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if self._job.include_usage else chunk

    def _delta(self, delta: Delta) -> Json:
        match delta:
            case Reasoning(text):
                return {"reasoning_content": text}
            case Content(text):
                return {"content": text}
            case ToolCall(index, name):
                return {"tool_calls": [{"index": index, **self._call(index, name, "")}]}
            case ToolArguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def _message(self, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.content or (None if answer.calls else "")}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [
                self._call(index, call.name, call.arguments) for index, call in enumerate(answer.calls)
            ]
        return message

    def _call(self, index: int, name: str, arguments: str) -> Json:
        call_id = f"call_{self._job.id.removeprefix('chatcmpl-')}{index}"
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class CompletionReplies:
    """text_completion, whole and in chunks."""

    def __init__(self, job: Job, model: str, created: int) -> None:
        self._job = job
        self._head = {"id": job.id, "object": "text_completion", "created": created, "model": model}

    def body(self, deltas: Iterable[Delta], reason: FinishReason, reader: OutputReader) -> Json:
        return {**self._chunk(assemble(deltas).content, reason), "usage": _usage(self._job, reader)}

    def chunks(self, deltas: Iterable[Delta], *, is_first: bool) -> list[Json]:  # noqa: ARG002 - no role to tell
        return [self._chunk(assemble(deltas).content)]

    def last_chunks(self, reason: FinishReason, reader: OutputReader) -> list[Json]:
        chunks = [self._chunk("", reason)]
        if self._job.include_usage:
            chunks.append({**self._head, "choices": [], "usage": _usage(self._job, reader)})
        return chunks

    def _chunk(self, text: str, reason: FinishReason | None = None) -> Json:
        chunk = {**self._head, "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]}
        return chunk | {"usage": None} if self._job.include_usage and self._job.stream else chunk


def _usage(job: Job, reader: OutputReader) -> Json:
    prompt_len = len(job.prompt_token_ids)
    usage: Json = {
        "prompt_tokens": prompt_len,
        "completion_tokens": reader.num_tokens,
        "total_tokens": prompt_len + reader.num_tokens,
    }
    if job.is_chat:
        usage["completion_tokens_details"] = {"reasoning_tokens": reader.num_reasoning_tokens}
    return usage
