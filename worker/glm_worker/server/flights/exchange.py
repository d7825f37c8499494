"""The response to one order as a pure ASGI application: whole, or as server-sent events.

Watches the connection all the time: a client that goes away cancels its request at once, streaming or not. The status
line of a stream waits a moment for the first thing to tell, so what fails at once is a plain HTTP error; then it goes
out, and comments after it, so that nobody on the way takes the connection for a dead one.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glm_worker.errors import DeadlinePassed, GlmWorkerError
from glm_worker.server.flights.flight import Flight
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.news import News
from glm_worker.server.flights.replies import Answered, Ending, Event, Replies
from glm_worker.server.flights.served import Served
from glm_worker.server.flights.so_far import ReadSoFar, read_so_far
from glm_worker.server.flights.spans import NO_SPANS, Spans
from glm_worker.server.flights.whole import made_of
from glm_worker.server.jobs.order import Order
from glm_worker.server.refusals import failure_of
from glm_worker.server.text.deltas import Delta, Reasoning
from glm_worker.server.text.long_json import parts_of

log = logging.getLogger(__name__)

HEADERS_AFTER_S = 1.0  # a stream without anything to tell sends its headers then
KEEP_ALIVE_S = 15.0  # between two comments while there is nothing to tell

_WAITING = b": waiting\n\n"
JSON = [(b"content-type", b"application/json")]
EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that know it pass events on as they come
]


class Exchange(Response):
    """Admits the order, sends its answers, and leaves nothing of it in flight, however it ends.

    Raises RequestRefused, Overloaded, GenerationLost, DeadlinePassed and what nobody expected as long as nothing was
    sent; after that they become an event. A whole answer that breaks off has no place for one: it raises.
    """

    def __init__(
        self,
        order: Order,
        replies: Replies,
        flights: Flights,
        headers: Mapping[str, str],
        spans: Spans = NO_SPANS,
    ) -> None:
        """headers: of the reply, beside those of its kind. spans: told of the order when it has ended."""
        super().__init__()
        self._order = order
        self._replies = replies
        self._flights = flights
        self._spans = spans
        self._own_headers = [(name.encode(), value.encode()) for name, value in {**headers, **order.headers}.items()]
        keep_alive: Event | None = getattr(replies, "keep_alive", None)
        self._waiting = _WAITING if keep_alive is None else keep_alive.line
        self._has_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, began_ns = Headers(scope=scope), time.time_ns()
        so_far = await self._read_so_far() if self._order.is_begun and self._flights.admits else ()
        flights = self._flights.admit_all(self._order.jobs, headers, age_s=self._order.age_s, so_far=so_far)
        for flight in flights:
            flight.spell = getattr(self._replies, "spelled", None)
        watcher = asyncio.create_task(self._cancel_when_gone(flights, receive))
        try:
            async with asyncio.timeout(self._order.time_left_s) as deadline:
                await self._write(flights, send)
            await self._complete(flights, send)
        except Exception as error:
            is_late = isinstance(error, TimeoutError) and deadline.expired()
            is_fault = not (is_late or isinstance(error, GlmWorkerError))
            for flight in flights:  # first: who does not read takes minutes to be told
                self._flights.fail(flight, error) if is_fault else self._flights.cancel(flight)
            if is_late:
                await self._miss_deadline(send)
            elif self._has_started:
                log.exception("request=%s is broken off", self._order.id)
                await self._fail(error, send)
            else:
                raise
        finally:
            watcher.cancel()
            flights[0].news.close()
            self._cancel(flights)  # whatever went wrong above, the engine must not go on for nobody
            self._spans.record(self._served(flights, headers, began_ns))

    async def _read_so_far(self) -> list[ReadSoFar]:
        """Return what another group has written of each answer."""
        return [await read_so_far(job) for job in self._order.jobs]

    async def _write(self, flights: list[Flight], send: Send) -> None:
        """Send what comes until the answers are complete, or wait for that."""
        await (self._stream(flights, send) if self._order.stream else _wait_all(flights))

    async def _complete(self, flights: list[Flight], send: Send) -> None:
        """Send what is complete, all of it: no deadline cuts it."""
        if not self._order.stream:
            await self._send_whole(flights, send)

    def _served(self, flights: list[Flight], headers: Headers, began_ns: int) -> Served:
        errors = [type(flight.ended.error).__name__ for flight in flights if flight.ended and flight.ended.error]
        is_finished = all(flight.ended is not None and flight.ended.finish_reason is not None for flight in flights)
        return Served(
            order=self._order,
            headers=headers,
            began_ns=began_ns,
            ended_ns=time.time_ns(),
            endings=[flight.ending for flight in flights] if is_finished else [],
            error=next(iter(errors), None),
            ttft_s=min((flight.times.ttft for flight in flights if flight.times.ttft is not None), default=None),
        )

    async def _cancel_when_gone(self, flights: list[Flight], receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel(flights)

    def _cancel(self, flights: list[Flight]) -> None:
        for flight in flights:
            self._flights.cancel(flight)

    async def _miss_deadline(self, send: Send) -> None:
        assert self._order.deadline_s is not None
        error = DeadlinePassed(self._order.deadline_s)
        if not self._has_started:
            raise error
        events = self._replies.failure(failure_of(error))
        await send({"type": "http.response.body", "body": lines(events), "more_body": False})

    async def _send_whole(self, flights: list[Flight], send: Send) -> None:
        """Send whole answers. Raises what one of them failed with."""
        for flight in flights:
            if flight.ended is not None and flight.ended.error is not None:
                raise flight.ended.error
        if is_cancelled(flights):  # the client is gone
            return
        answers = [Answered(self._visible(flight.take()), flight.ending) for flight in flights]
        parts = await made_of(answers, lambda: parts_of(self._replies.body(answers)))
        headers = [*JSON, *self._own_headers, (b"content-length", str(sum(map(len, parts))).encode())]
        self._has_started = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, part in enumerate(parts, start=1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    async def _stream(self, flights: list[Flight], send: Send) -> None:
        news = flights[0].news
        endings: dict[int, Ending] = {}
        while not is_cancelled(flights):
            news.clear()
            if (failed := error_of(flights)) is not None:
                await self._fail(failed, send)
                return
            events = self._events(flights, endings)
            is_over = len(endings) == len(flights)
            if is_over:
                events += self._replies.closing([endings[index] for index in range(len(flights))])
            if events:
                await self._start(send)
                await send({"type": "http.response.body", "body": lines(events), "more_body": not is_over})
            if is_over:
                return
            if not news.is_set:
                await self._wait(news, send)

    def _events(self, flights: list[Flight], endings: dict[int, Ending]) -> list[Event]:
        """Take what is new, and return it in the surface's words. endings: of answers that are told to their end."""
        events: list[Event] = []
        for index, flight in enumerate(flights):
            if index in endings:
                continue
            events += self._chunks(index, flight.take())
            if flight.ended is not None:
                endings[index] = flight.ending
                events += self._replies.ending(index, flight.ending)
        return events

    def _chunks(self, index: int, deltas: list[Delta]) -> list[Event]:
        """Return what the client is told of these deltas."""
        visible = self._visible(deltas)
        return self._replies.chunks(index, visible) if visible else []

    async def _wait(self, news: News, send: Send) -> None:
        """Wait until there is something new, and meanwhile show that the connection lives."""
        while not await news.wait(KEEP_ALIVE_S if self._has_started else HEADERS_AFTER_S):
            await self._start(send)
            await send({"type": "http.response.body", "body": self._waiting, "more_body": True})

    async def _start(self, send: Send) -> None:
        if self._has_started:
            return
        self._has_started = True
        await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *self._own_headers]})
        if events := self._replies.opening():
            await send({"type": "http.response.body", "body": lines(events), "more_body": True})

    async def _fail(self, error: Exception, send: Send) -> None:
        """Tell why there is no more, as an HTTP error where that can still be one."""
        if not self._has_started or not self._order.stream:
            raise error
        body = lines(self._replies.failure(failure_of(error)))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _visible(self, deltas: list[Delta]) -> list[Delta]:
        if self._order.shows_reasoning:
            return deltas
        return [delta for delta in deltas if not isinstance(delta, Reasoning)]


async def _wait_all(flights: list[Flight]) -> None:
    news = flights[0].news  # one for all flights of an order
    while not _is_over(flights):
        news.clear()
        await news.wait()


def _is_over(flights: list[Flight]) -> bool:
    """Tell whether every flight has ended, or one of them badly."""
    return all(flight.ended is not None for flight in flights) or error_of(flights) is not None


def error_of(flights: list[Flight]) -> Exception | None:
    """Return what the first flight that failed has failed with."""
    for flight in flights:  # asked for each token of each stream: no generator, no list
        if flight.ended is not None and flight.ended.error is not None:
            return flight.ended.error
    return None


def is_cancelled(flights: list[Flight]) -> bool:
    return any(flight.ended is not None and flight.ended.is_cancelled for flight in flights)


def lines(events: list[Event]) -> bytes:
    return events[0].line if len(events) == 1 else b"".join([event.line for event in events])
