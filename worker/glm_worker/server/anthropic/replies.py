"""Answers in the shapes of Anthropic's messages: whole bodies and stream events. Values in, dicts out.

A whole answer is put together from the events of its stream, so the two cannot differ.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from glm_edge.errors.anthropic import error_body
from glm_edge.errors.failure import Failure
from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.text.argument_json import whole_members
from glm_worker.server.text.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall, merged

Json = dict[str, Any]
Prose = Literal["thinking", "text"]


class MessageReplies:
    """One message. keep_alive: what is sent while there is nothing to tell."""

    keep_alive = Event({"type": "ping"}, "ping")

    def __init__(self, order: Order, model: str, created: int) -> None:  # noqa: ARG002 - messages have no time
        self._order = order
        self._model = model
        self._blocks = _Blocks(order.id)

    def body(self, answers: Sequence[Answered]) -> Json:
        ((deltas, ending),) = answers
        events = [*self._blocks.add(merged(deltas)), *self._blocks.close()]
        return {**self._message(_put_together(events), self._usage(ending)), **self._stopped(ending)}

    def opening(self) -> list[Event]:
        message = {**self._message([], self._usage(None)), "stop_reason": None, "stop_sequence": None}
        return [_event({"type": "message_start", "message": message})]

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:  # noqa: ARG002 - there is one answer
        return self._blocks.add(merged(deltas))

    def ending(self, index: int, ending: Ending) -> list[Event]:  # noqa: ARG002 - there is one answer
        delta = {"type": "message_delta", "delta": self._stopped(ending), "usage": self._usage(ending)}
        return [*self._blocks.close(), _event(delta)]

    def closing(self, endings: Sequence[Ending]) -> list[Event]:  # noqa: ARG002 - told by the ending
        return [_event({"type": "message_stop"})]

    def failure(self, failure: Failure) -> list[Event]:
        return [_event(error_body(failure))]

    def _message(self, content: list[Json], usage: Json) -> Json:
        return {
            "id": self._order.id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "usage": usage,
        }

    def _stopped(self, ending: Ending) -> Json:
        sequence = ending.stop if isinstance(ending.stop, str) else None
        return {"stop_reason": self._reason(ending, sequence), "stop_sequence": sequence}

    def _reason(self, ending: Ending, sequence: str | None) -> str:
        match ending.reason:
            case "tool_calls":
                return "tool_use"
            case "length":
                (job,) = self._order.jobs
                return "model_context_window_exceeded" if job.max_tokens is None else "max_tokens"
            case "stop":
                return "end_turn" if sequence is None else "stop_sequence"

    def _usage(self, ending: Ending | None) -> Json:
        """Return the counts so far: what was read from the cache is no part of the input, and only its end says it.

        Writing to the cache costs nobody anything, so nothing counts as written.
        """
        num_cached = 0 if ending is None else ending.num_cached_tokens
        return {
            "input_tokens": self._order.num_prompt_tokens - num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": num_cached,
            "output_tokens": 0 if ending is None else ending.num_tokens,
            "output_tokens_details": {"thinking_tokens": 0 if ending is None else ending.num_reasoning_tokens},
        }


class _Blocks:
    """Deltas to blocks, of which at most one is open. None of them is empty but a call's input."""

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._open: Prose | int | None = None  # an int: a call, by its number
        self._num_begun = 0
        self._has_come: set[Prose] = set()

    def add(self, deltas: Sequence[Delta]) -> list[Event]:
        events: list[Event] = []
        for delta in deltas:
            match delta:
                case Reasoning(text):
                    events += self._prose("thinking", text)
                case Content(text):
                    events += self._prose("text", text)
                case ToolCall(number, name):
                    block_id = f"toolu_{self._message_id.removeprefix('msg_')}{number}"
                    block: Json = {"type": "tool_use", "id": block_id, "name": name, "input": {}}
                    events += [*self.close(), self._begin(number, block)]
                case ToolArguments(number, text):
                    assert number == self._open
                    events.append(self._more({"type": "input_json_delta", "partial_json": text}))
                case _:  # log-probabilities, for which this surface has no request
                    pass
        return events

    def close(self) -> list[Event]:
        """End the block that is open."""
        if self._open is None:
            return []
        events: list[Event] = []
        if self._open == "thinking":
            # Nobody verifies it. Clients want one, and keep it with the thought.
            signature = f"{self._message_id}.{self._num_begun - 1}"
            events.append(self._more({"type": "signature_delta", "signature": signature}))
        self._open = None
        return [*events, _event({"type": "content_block_stop", "index": self._num_begun - 1})]

    def _prose(self, kind: Prose, text: str) -> list[Event]:
        events: list[Event] = []
        if self._open != kind:
            if kind in self._has_come:
                text = text.removeprefix("\n")  # what keeps it apart from the block before, where there are no blocks
            if not text:
                return []
            self._has_come.add(kind)
            block = {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
            events += [*self.close(), self._begin(kind, block)]
        return [*events, self._more({"type": f"{kind}_delta", kind: text})] if text else events

    def _begin(self, what: Prose | int, block: Json) -> Event:
        self._open = what
        self._num_begun += 1
        return _event({"type": "content_block_start", "index": self._num_begun - 1, "content_block": block})

    def _more(self, delta: Json) -> Event:
        return _event({"type": "content_block_delta", "index": self._num_begun - 1, "delta": delta})


def _event(data: Json) -> Event:
    return Event(data, data["type"])


def _put_together(events: Sequence[Event]) -> list[Json]:
    """Return the blocks that these events are the stream of."""
    blocks: list[Json] = []
    arguments: dict[int, str] = {}
    for event in events:
        data: Any = event.data
        match data:
            case {"content_block": block}:
                blocks.append(dict(block))
            case {"delta": {"partial_json": text}, "index": index}:
                arguments[index] = arguments.get(index, "") + text
            case {"delta": {"type": _, **added}, "index": index}:
                for name, text in added.items():
                    blocks[index][name] += text
    for index, text in arguments.items():
        blocks[index]["input"] = _input(text)
    return blocks


def _input(arguments: str) -> msgspec.Raw:
    """Return the JSON text of a call's arguments as it is; of a call that was cut, those that are whole."""
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = whole_members(arguments)
    return msgspec.Raw(arguments.encode())
