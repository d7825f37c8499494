"""Answers to chats: chat.completion, whole, and chat.completion.chunk. Values in, dicts out."""

from collections.abc import Sequence
from typing import Any

from glm_worker.server.flights.replies import Answered, Blank, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.logprobs import chat_logprobs, spelled_in_chat
from glm_worker.server.openai.stream import StreamedReplies
from glm_worker.server.openai.usage import Progress, usage_of
from glm_worker.server.text.deltas import (
    Answer,
    Content,
    Delta,
    FinishReason,
    Reasoning,
    TokenLogprob,
    ToolArguments,
    ToolCall,
    assemble,
    merged,
)

Json = dict[str, Any]


class ChatReplies(StreamedReplies):
    def __init__(self, order: Order, model: str, created: int, progress: Progress | None = None) -> None:
        """progress: given when every chunk is to have the usage so far."""
        super().__init__(order, model, created, "chat.completion.chunk", progress)
        self._has_begun: set[int] = set()
        self._blanks: dict[tuple[int, type[Delta]], Blank] = {}

    def body(self, answers: Sequence[Answered]) -> Json:
        choices = [self._whole(index, assemble(deltas), ending) for index, (deltas, ending) in enumerate(answers)]
        usage = usage_of(self._order, [ending for _, ending in answers])
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:
        if len(deltas) == 1 and (event := self._at_once(index, deltas[0])) is not None:
            return [event]
        tokens = [delta for delta in deltas if isinstance(delta, TokenLogprob)]
        told = merged(delta for delta in deltas if not isinstance(delta, TokenLogprob))
        choices = [self._choice(index, delta) for delta in self._deltas(index, told)]
        if tokens:
            # A token may add no text yet, as the first byte of a character: then its logprob has its own chunk.
            of_content = [choice for choice in choices if "content" in choice["delta"]]
            if not of_content:
                of_content = [self._choice(index, {"content": ""})]
                choices += of_content
            of_content[-1]["logprobs"] = self._logprobs(tokens)
        return self._told(index, [*self._begin(index), *choices])

    def _at_once(self, index: int, delta: Delta) -> Event | None:
        """Return the chunk of a text that is told as all those before it; None where there is more to tell."""
        if not isinstance(delta, Content | Reasoning) or self._progress is not None or index not in self._has_begun:
            return None
        blank = self._blanks.get((index, type(delta)))
        if blank is None:
            kind = type(delta)
            blank = self._blanks[index, kind] = Blank(lambda text: self._with_usage(index, kind(text)))
        return Event(blank.filled(delta.text))

    def _with_usage(self, index: int, delta: Delta) -> Json:
        (event,) = self._told(index, [self._choice(index, self._delta(index, delta))])
        assert isinstance(event.data, dict)
        return event.data

    def ending(self, index: int, ending: Ending) -> list[Event]:
        return self._told(index, [*self._begin(index), self._choice(index, {}, ending)], ending)

    def spelled(self, token: TokenLogprob) -> TokenLogprob:
        return spelled_in_chat(token, self._order.jobs[0].tokenizer)

    def _begin(self, index: int) -> list[Json]:
        """Return the choice that names the role, the first time."""
        if index in self._has_begun:
            return []
        self._has_begun.add(index)
        return [self._choice(index, {"role": "assistant", "content": ""})]

    def _choice(self, index: int, delta: Json, ending: Ending | None = None) -> Json:
        reason: FinishReason | None = None if ending is None else ending.reason
        choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return choice if ending is None else {**choice, "stop_reason": ending.stop}

    def _whole(self, index: int, answer: Answer, ending: Ending) -> Json:
        return {
            "index": index,
            "message": self._message(index, answer),
            "logprobs": None if self._order.jobs[index].num_logprobs is None else self._logprobs(answer.logprobs),
            "finish_reason": ending.reason,
            "stop_reason": ending.stop,
        }

    def _message(self, index: int, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.content or (None if answer.calls else "")}
        if answer.reasoning:
            message |= self._reasoning(answer.reasoning)
        if answer.calls:
            message["tool_calls"] = [
                self._call(index, number, call.name, call.arguments) for number, call in enumerate(answer.calls)
            ]
        return message

    def _deltas(self, index: int, deltas: Sequence[Delta]) -> list[Json]:
        """Return what is told of these deltas, each in a chunk."""
        return [self._delta(index, delta) for delta in deltas]

    def _delta(self, index: int, delta: Delta) -> Json:
        match delta:
            case Reasoning(text):
                return self._reasoning(text)
            case Content(text):
                return {"content": text}
            case ToolCall(number, name):
                return {"tool_calls": [{"index": number, **self._call(index, number, name, "")}]}
            case ToolArguments(number, text):
                return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}
            case TokenLogprob():
                raise AssertionError("logprobs are told beside the content")

    def _reasoning(self, text: str) -> Json:
        both = {"reasoning": text} if self._order.has_both_reasoning_fields else {}
        return {"reasoning_content": text, **both}

    def _call(self, index: int, number: int, name: str, arguments: str) -> Json:
        """Return a call. Its id is the order's own, at most 40 characters, and no other call of the order has it."""
        order_id = self._order.id.removeprefix("chatcmpl-")[:24]
        return {
            "id": f"call_{order_id}{index:02x}{number:03x}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> Json:
        return chat_logprobs(tokens, self._order.jobs[0].tokenizer)
