"""A response that is made whether or not anybody listens."""

import asyncio
import contextlib
import logging
import time
from typing import Any

from starlette.datastructures import Headers

from glm_worker.errors import DeadlinePassed
from glm_worker.server.flights.draining import OpenWork
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.replies import Answered, Ending
from glm_worker.server.flights.served import Served
from glm_worker.server.flights.spans import Spans
from glm_worker.server.flights.whole import made_of
from glm_worker.server.jobs.order import Order
from glm_worker.server.refusals import failure_of
from glm_worker.server.responses.event_log import EventLog
from glm_worker.server.responses.replies import ResponseReplies
from glm_worker.server.text.deltas import Delta, Reasoning

log = logging.getLogger(__name__)

Json = dict[str, Any]


READ_S = 5.0  # clients ask every second or two how a response stands


class BackgroundResponse:
    """log: of its events, if the request asked for a stream.

    A drain waits for it as for a request: until it is complete, and then for a moment until somebody has read it, for
    it goes with the server.
    """

    def __init__(self, order: Order, replies: ResponseReplies, flights: Flights, spans: Spans, work: OpenWork) -> None:
        self._order = order
        self._replies = replies
        self._flights = flights
        self._spans = spans
        self._work = work
        self.was_read = asyncio.Event()  # somebody was told how it ended
        self._task: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None
        self.log = EventLog(tells_reasoning=order.shows_reasoning, on_read=self.was_read.set) if order.stream else None

    def start(self, headers: Headers) -> None:
        """Admit the order and go on without anybody. Raises RequestRefused and Overloaded.

        headers: of the request, which say what was promised to it.
        """
        (self._flight,) = self._flights.admit_all(self._order.jobs, headers, age_s=self._order.age_s)
        self._flight.spell = self._replies.spelled
        if self.log is not None:
            self.log.add(self._replies.opening())
        self._task = asyncio.create_task(self._run(headers, time.time_ns()))
        self._staying = asyncio.create_task(self._stay(self._task))

    def snapshot(self) -> Json:
        """Return the response as it stands while it is being made."""
        return self._replies.standing("in_progress" if self._flight.reader.num_tokens else "queued")

    async def cancel(self) -> None:
        """End it: the engine frees its blocks at once. Returns when the response is complete as cancelled."""
        self._flights.cancel(self._flight)
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _stay(self, making: asyncio.Task[None]) -> None:
        """Hold up a drain for as long as somebody may want the response."""
        with self._work.one():
            await asyncio.wait({making})
            if self._work.is_closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        await self.was_read.wait()

    async def _run(self, headers: Headers, began_ns: int) -> None:
        try:
            async with asyncio.timeout(self._order.time_left_s):
                await self._answer()
        except TimeoutError:
            assert self._order.deadline_s is not None
            self._fail(DeadlinePassed(self._order.deadline_s))
        except Exception as error:
            log.exception("response=%s failed in the background", self._order.id)
            self._fail(error)
        finally:
            self._flights.cancel(self._flight)
            if self.log is not None:
                self.log.close()
            self._spans.record(self._served(headers, began_ns))

    async def _answer(self) -> None:
        flight = self._flight
        while flight.ended is None:
            flight.news.clear()
            if self.log is not None:
                self._take(self.log)
            if flight.ended is None:
                await flight.news.wait()
        if flight.ended.error is not None:
            self._fail(flight.ended.error)
        elif flight.ended.finish_reason is None:
            self._cancelled()
        elif self.log is not None:
            self._take(self.log)
            self.log.add(self._replies.ending(0, flight.ending))
            self.log.add(self._replies.closing([flight.ending]))
        else:
            answers = [Answered(self._visible(flight.take()), flight.ending)]
            await made_of(answers, lambda: self._replies.body(answers))

    def _take(self, told: EventLog) -> None:
        """Tell what is new."""
        deltas = self._visible(self._flight.take())
        if deltas:
            told.add(self._replies.chunks(0, deltas))

    def _cancelled(self) -> None:
        flight = self._flight
        ending = Ending(
            reason="length",
            num_prompt_tokens=len(flight.job.prompt_token_ids),
            num_tokens=flight.reader.num_tokens,
            num_reasoning_tokens=flight.reader.num_reasoning_tokens,
            num_cached_tokens=flight.num_cached_tokens or 0,
        )
        self._replies.cancelled(self._visible(flight.take()), ending)

    def _served(self, headers: Headers, began_ns: int) -> Served:
        flight, ended = self._flight, self._flight.ended
        is_finished = ended is not None and ended.finish_reason is not None
        return Served(
            order=self._order,
            headers=headers,
            began_ns=began_ns,
            ended_ns=time.time_ns(),
            endings=[flight.ending] if is_finished else [],
            error=type(ended.error).__name__ if ended is not None and ended.error is not None else None,
            ttft_s=flight.times.ttft,
        )

    def _fail(self, error: Exception) -> None:
        failure = failure_of(error)
        if self.log is not None:
            self.log.add(self._replies.failure(failure))
        else:
            self._replies.failed(failure)

    def _visible(self, deltas: list[Delta]) -> list[Delta]:
        if self._order.shows_reasoning:
            return deltas
        return [delta for delta in deltas if not isinstance(delta, Reasoning)]
