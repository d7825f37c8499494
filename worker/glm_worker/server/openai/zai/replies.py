"""Answers to chats in Z.ai's dialect: the last chunk has the usage, and calls come whole unless asked otherwise."""

from collections.abc import Sequence
from typing import Any

from glm_edge.errors.failure import Failure
from glm_edge.errors.zai import error_body
from glm_worker.server.flights.replies import DONE, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.replies import ChatReplies
from glm_worker.server.openai.usage import Progress, usage_of
from glm_worker.server.text.deltas import Delta, ToolArguments, ToolCall

Json = dict[str, Any]


class ZaiReplies(ChatReplies):
    def __init__(
        self,
        order: Order,
        model: str,
        created: int,
        request_id: str,
        *,
        streams_arguments: bool,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(order, model, created, progress)
        self._head["request_id"] = request_id
        self._streams_arguments = streams_arguments
        # By answer: number, name and texts of the arguments of a call that is not told yet
        self._calls: dict[int, tuple[int, str, list[str]]] = {}
        self._endings: dict[int, Ending] = {}

    def ending(self, index: int, ending: Ending) -> list[Event]:
        """The chunk that ends the last answer has the usage of all."""
        self._endings[index] = ending
        events = self._told(index, [self._choice(index, delta) for delta in self._whole_call(index)], ending)
        last = super().ending(index, ending)
        if len(self._endings) == len(self._order.jobs):
            endings = [self._endings[number] for number in range(len(self._order.jobs))]
            *before, final = last
            assert isinstance(final.data, dict)
            last = [*before, Event({**final.data, "usage": usage_of(self._order, endings)})]
        return [*events, *last]

    def closing(self, endings: Sequence[Ending]) -> list[Event]:  # noqa: ARG002 - the shape of Replies
        return [DONE]

    def failure(self, failure: Failure) -> list[Event]:
        return [Event(error_body(failure))]

    def _at_once(self, index: int, delta: Delta) -> Event | None:
        return None if index in self._calls else super()._at_once(index, delta)

    def _deltas(self, index: int, deltas: Sequence[Delta]) -> list[Json]:
        if self._streams_arguments:
            return super()._deltas(index, deltas)
        told: list[Json] = []
        for delta in deltas:
            match delta:
                case ToolCall(number, name):
                    told += self._whole_call(index)
                    self._calls[index] = (number, name, [])
                case ToolArguments(_, text):
                    self._calls[index][2].append(text)
                case _:
                    told += [*self._whole_call(index), *super()._deltas(index, [delta])]
        return told

    def _whole_call(self, index: int) -> list[Json]:
        """Return the call that has not been told yet, if there is one: it is complete."""
        if index not in self._calls:
            return []
        number, name, arguments = self._calls.pop(index)
        return [{"tool_calls": [{"index": number, **self._call(index, number, name, "".join(arguments))}]}]
