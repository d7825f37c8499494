"""An answer as the items of a response, as it grows: each step is told as events, without their numbers. Pure.

Items come in the order in which the model wrote them: reasoning, text, calls, and whatever comes after. What the events
add up to is what `items` holds; a whole response is made by the same steps, untold.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from glm_worker.server.responses.ids import ResponseId
from glm_worker.server.responses.items import Status
from glm_worker.server.responses.opaque import seal
from glm_worker.server.text.deltas import Content, Delta, Reasoning, TokenLogprob, ToolArguments, ToolCall

Json = dict[str, Any]


class Output:
    """items: those that are complete, in order."""

    def __init__(self, id: ResponseId, *, seals: bool, logprob: Callable[[TokenLogprob], Json]) -> None:  # noqa: A002
        """seals: whether reasoning has its opaque string. logprob: returns how one token is told."""
        self._id = id
        self._seals = seals
        self._logprob = logprob
        self._open: _Open | None = None
        self._logprobs: list[Json] = []  # of tokens whose text has not come
        self.items: list[Json] = []
        self.has_cut_call = False

    def feed(self, delta: Delta) -> list[Json]:
        """Return the events of more of the answer."""
        match delta:
            case Reasoning(text):
                return [*self._reasoning(), *self._add(text)] if text else []
            case Content(text):
                return [*self._message(), *self._add(text)] if text else []
            case ToolCall(_, name):
                return self._call(name)
            case ToolArguments(_, text):
                assert isinstance(self._open, _Call)
                return self._add(text) if text else []
            case TokenLogprob():
                self._logprobs.append(self._logprob(delta))
                return []

    def finish(self, *, is_complete: bool) -> list[Json]:
        """Return the events of the end. is_complete: whether the model ended the answer itself.

        An answer of nothing but reasoning gets an empty message then: clients look for one.
        """
        events = self._close("completed" if is_complete else "incomplete")
        if is_complete and all(item["type"] == "reasoning" for item in self.items):
            events += [*self._message(), *self._close("completed")]
        return events

    def _reasoning(self) -> list[Json]:
        """Return the events that lead to more reasoning: none inside of some."""
        if isinstance(self._open, _Reasoning):
            return []
        closing, index = self._close("completed"), len(self.items)
        item = _Reasoning(self._id.item("rs", index), index)
        item.seals = self._seals
        return [*closing, *self._begin(item)]

    def _message(self) -> list[Json]:
        """Return the events that lead to more text: none inside of some."""
        if isinstance(self._open, _Message):
            return []
        closing, index = self._close("completed"), len(self.items)
        return [*closing, *self._begin(_Message(self._id.item("msg", index), index))]

    def _call(self, name: str) -> list[Json]:
        closing, index = self._close("completed"), len(self.items)
        item = _Call(self._id.item("fc", index), index, self._id.item("call", index), name)
        return [*closing, *self._begin(item)]

    def _begin(self, item: "_Open") -> list[Json]:
        self._open = item
        return item.begin()

    def _add(self, text: str) -> list[Json]:
        assert self._open is not None
        self._open.texts.append(text)
        event = self._open.delta(text)
        if isinstance(self._open, _Message):
            event["logprobs"] = self._take_logprobs(self._open)
        return [event]

    def _take_logprobs(self, message: "_Message") -> list[Json]:
        taken, self._logprobs = self._logprobs, []
        message.logprobs += taken
        return taken

    def _close(self, status: Status) -> list[Json]:
        closing, self._open = self._open, None
        if closing is None:
            return []
        events: list[Json] = []
        if isinstance(closing, _Message) and self._logprobs:  # of tokens that added no text
            events.append(closing.delta("") | {"logprobs": self._take_logprobs(closing)})
        if isinstance(closing, _Call):  # whole as it is, also where the answer was cut right behind it
            status = "completed" if _is_object(closing.text) else "incomplete"
            self.has_cut_call = self.has_cut_call or status == "incomplete"
        item = closing.item(status)
        self.items.append(item)
        done = {"type": "response.output_item.done", "output_index": closing.index, "item": item}
        return [*events, *closing.end(), done]


class _Open(ABC):
    """One item that grows: its text, and the events around it."""

    def __init__(self, id_: str, index: int) -> None:
        self.id = id_
        self.index = index
        self.texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @abstractmethod
    def item(self, status: Status) -> Json:
        """Return the item as it is now."""

    @abstractmethod
    def begin(self) -> list[Json]:
        """Return the events before its text."""

    @abstractmethod
    def delta(self, text: str) -> Json:
        """Return the event of more of its text."""

    @abstractmethod
    def end(self) -> list[Json]:
        """Return the events after its text, up to the one that it is done."""

    def added(self, item: Json) -> Json:
        return {"type": "response.output_item.added", "output_index": self.index, "item": item}

    def event(self, type_: str, **fields: Any) -> Json:
        return {"type": type_, "item_id": self.id, "output_index": self.index, **fields}


class _Part(_Open):
    """An item whose text is its one part."""

    @abstractmethod
    def part(self) -> Json:
        """Return the part as it is now."""

    def part_event(self, type_: str, **fields: Any) -> Json:
        return self.event(type_, content_index=0, **fields)

    def begin(self) -> list[Json]:
        item = self.item("in_progress") | {"content": []}
        return [self.added(item), self.part_event("response.content_part.added", part=self.part())]


class _Reasoning(_Part):
    seals = False

    def part(self) -> Json:
        return {"type": "reasoning_text", "text": self.text}

    def delta(self, text: str) -> Json:
        return self.part_event("response.reasoning_text.delta", delta=text)

    def end(self) -> list[Json]:
        return [
            self.part_event("response.reasoning_text.done", text=self.text),
            self.part_event("response.content_part.done", part=self.part()),
        ]

    def item(self, status: Status) -> Json:
        item = {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": [self.part()]}
        return item | {"encrypted_content": seal(self.text)} if self.seals and self.texts else item


class _Message(_Part):
    def __init__(self, id_: str, index: int) -> None:
        super().__init__(id_, index)
        self.logprobs: list[Json] = []

    def part(self) -> Json:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self.logprobs)}

    def delta(self, text: str) -> Json:
        return self.part_event("response.output_text.delta", delta=text, logprobs=[])

    def end(self) -> list[Json]:
        return [
            self.part_event("response.output_text.done", text=self.text, logprobs=list(self.logprobs)),
            self.part_event("response.content_part.done", part=self.part()),
        ]

    def item(self, status: Status) -> Json:
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": [self.part()]}


class _Call(_Open):
    def __init__(self, id_: str, index: int, call_id: str, name: str) -> None:
        super().__init__(id_, index)
        self._call_id = call_id
        self._name = name

    def begin(self) -> list[Json]:
        return [self.added(self.item("in_progress"))]

    def delta(self, text: str) -> Json:
        return self.event("response.function_call_arguments.delta", delta=text)

    def end(self) -> list[Json]:
        return [self.event("response.function_call_arguments.done", name=self._name, arguments=self.text)]

    def item(self, status: Status) -> Json:
        said = {"call_id": self._call_id, "name": self._name, "arguments": self.text}
        return {"id": self.id, "type": "function_call", "status": status, **said}


def _is_object(text: str) -> bool:
    """Tell whether a call's arguments are whole."""
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False
