"""The response to one job as a pure ASGI application: whole, or as server-sent events.

Watches the connection all the time: a client that goes away cancels its request at once, streaming or not. The status
line waits for the first thing to tell, so whatever fails before is a plain HTTP error.
"""

import asyncio
from collections.abc import Iterable

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glm_worker.server.flight import Ended, Flight
from glm_worker.server.flights import Flights
from glm_worker.server.intake import Job
from glm_worker.server.refusals import failure_of
from glm_worker.server.replies import Json, Replies
from glm_worker.server.text.deltas import Delta

_encode = msgspec.json.Encoder().encode
_JSON = [(b"content-type", b"application/json")]
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that know it pass events on as they come
]


class Exchange(Response):
    """Admits the job, sends its answer, and leaves nothing of it in flight, however it ends.

    Raises RequestRefused, Overloaded and GenerationLost as long as nothing was sent; after that they become an event.
    """

    def __init__(self, job: Job, replies: Replies, flights: Flights) -> None:
        super().__init__()
        self._job = job
        self._replies = replies
        self._flights = flights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        flight = self._flights.admit(self._job, Headers(scope=scope))
        watcher = asyncio.create_task(self._cancel_when_gone(flight, receive))
        try:
            await (self._stream(flight, send) if self._job.stream else self._whole(flight, send))
        finally:
            watcher.cancel()
            self._flights.cancel(flight)  # whatever went wrong above, the engine must not go on for nobody

    async def _cancel_when_gone(self, flight: Flight, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._flights.cancel(flight)

    async def _whole(self, flight: Flight, send: Send) -> None:
        await flight.wait_end()
        assert flight.ended is not None
        if flight.ended.error is not None:
            raise flight.ended.error
        if flight.ended.finish_reason is None:  # the client is gone
            return
        body = _encode(self._replies.body(flight.take(), flight.ended.finish_reason, flight.reader))
        headers = [*_JSON, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, flight: Flight, send: Send) -> None:
        has_started = False
        while True:
            await flight.wait()
            # From here to the first await nothing else runs: what is taken is noted as streamed before anybody can
            # decide that the request is run again.
            deltas, ended = flight.take(), flight.ended
            if ended is not None and ended.error is not None and not has_started:
                raise ended.error
            if ended is not None and ended.finish_reason is None and ended.error is None:  # the client is gone
                return
            self._flights.stream(flight)
            is_first, has_started = not has_started, True
            if is_first:
                await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
            body = self._events(flight, deltas, ended, is_first=is_first)
            await send({"type": "http.response.body", "body": body, "more_body": ended is None})
            if ended is not None:
                return

    def _events(self, flight: Flight, deltas: list[Delta], ended: Ended | None, *, is_first: bool) -> bytes:
        chunks: list[Json] = self._replies.chunks(deltas, is_first=is_first) if deltas or is_first else []
        if ended is None:
            return _sse(chunks)
        if ended.error is not None:
            return _sse([*chunks, failure_of(ended.error).body])
        assert ended.finish_reason is not None
        return _sse([*chunks, *self._replies.last_chunks(ended.finish_reason, flight.reader)]) + b"data: [DONE]\n\n"


def _sse(chunks: Iterable[Json]) -> bytes:
    return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in chunks)
