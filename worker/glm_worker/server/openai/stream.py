"""What the streams of both endpoints share: heads, the usage where it is asked for, the end, failures."""

from collections.abc import Sequence
from typing import Any

from glm_edge.errors.failure import Failure
from glm_edge.errors.openai import error_body
from glm_worker.server.flights.replies import DONE, Ending, Event, Generated
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.usage import Progress, generated_in, usage, usage_of

Json = dict[str, Any]


class StreamedReplies:
    """progress: given when every chunk is to have the usage so far."""

    def __init__(self, order: Order, model: str, created: int, chunk_object: str, progress: Progress | None) -> None:
        self._order = order
        self._head: Json = {"id": order.id, "created": created, "model": model}
        self._chunk_object = chunk_object
        self._progress = progress
        self._generated = [Generated(0, 0)] * len(order.jobs)
        self._held: list[Json] = []  # chunks of an answer that is over, whose count comes with its ending

    def opening(self) -> list[Event]:
        return []  # clients take the first event for the first token

    def closing(self, endings: Sequence[Ending]) -> list[Event]:
        usage = {**self._chunk([]), "usage": usage_of(self._order, endings)}
        return [*([Event(usage)] if self._order.include_usage else []), DONE]

    def failure(self, failure: Failure) -> list[Event]:
        return [Event(error_body(failure))]

    def forget(self) -> None:
        """Tell nothing of what was given so far: another group has told it."""
        self._held = []

    def _chunk(self, choices: list[Json]) -> Json:
        return {**self._head, "object": self._chunk_object, "choices": choices}

    def _told(self, index: int, choices: Sequence[Json], ending: Ending | None = None) -> list[Event]:
        """Return the chunks with these choices of one answer. ending: if they are its last ones."""
        chunks = [self._chunk([choice]) for choice in choices]
        if self._progress is None:
            return [Event({**chunk, "usage": None} if self._order.include_usage else chunk) for chunk in chunks]
        counted = self._count(index, ending)
        chunks, self._held = [*self._held, *chunks], []
        if not counted:
            self._held = chunks
            return []
        so_far = usage(self._order, self._generated)
        return [Event({**chunk, "usage": so_far}) for chunk in chunks]

    def _count(self, index: int, ending: Ending | None) -> bool:
        """Note what the answer has so far, and return whether that is known."""
        assert self._progress is not None
        if ending is not None:
            generated: Generated | None = generated_in(ending)
        else:
            generated = self._progress(self._order.jobs[index].id)
        if generated is not None:
            self._generated[index] = generated
        return generated is not None
