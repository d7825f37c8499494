"""The end of a server: keep accepting for a while, then only finish what runs, then say so."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_worker.errors import Overloaded
from glm_worker.margins import WRITE_OUT_S
from glm_worker.messages import Drain, Drained
from glm_worker.server.flights.flights import Flights

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1  # by then the Service sends clients elsewhere


class OpenWork:
    """Counts what a drain waits for: requests being answered, and answers that are made without their clients."""

    def __init__(self) -> None:
        self.is_closing = False  # a drain has begun
        self._num_open = 0
        self._none_open = asyncio.Event()
        self._none_open.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one more, until it is left."""
        self._num_open += 1
        self._none_open.clear()
        try:
            yield
        finally:
            self._num_open -= 1
            if self._num_open == 0:
                self._none_open.set()

    async def wait_none_open(self) -> None:
        """Wait until there is none."""
        await self._none_open.wait()


class OpenExchanges:
    """ASGI middleware that counts the HTTP requests being answered, and asks clients to leave once a drain began."""

    def __init__(self, app: ASGIApp, work: OpenWork) -> None:
        self._app = app
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._work.one():
            await self._app(scope, receive, self._closing(send))

    def _closing(self, send: Send) -> Send:
        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and self._work.is_closing:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return closing_send


class Drainer:
    """Runs one drain. Asked again, it keeps to the earlier times; every asker is answered when all is done."""

    def __init__(self, work: OpenWork, flights: Flights, answer: Callable[[Drained], None]) -> None:
        self._work = work
        self._flights = flights
        self._answer = answer
        self._accept_until = math.inf
        self._deadline = math.inf
        self._accepting: asyncio.Timeout | None = None
        self._finishing: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        self._drained: Drained | None = None

    def drain(self, request: Drain) -> None:
        """Begin, or hurry up."""
        now = asyncio.get_running_loop().time()
        accept_until = now + request.accept_s
        self._accept_until = min(self._accept_until, accept_until)
        self._deadline = min(self._deadline, accept_until + request.deadline_s)
        if self._drained is not None:
            self._answer(self._drained)
        elif self._task is None:
            log.info(
                "drain: accepting for %.1f s more, then finishing within %.1f s", request.accept_s, request.deadline_s
            )
            self._task = asyncio.create_task(self._run())
        else:
            _reschedule(self._accepting, self._accept_until)
            _reschedule(self._finishing, self._deadline)

    async def _run(self) -> None:
        self._work.is_closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._accept_until) as self._accepting:
                await asyncio.Event().wait()  # a sleep that can be cut short
        self._flights.close(RETRY_AFTER_S)
        num_ended_early = 0
        try:
            async with asyncio.timeout_at(self._deadline) as self._finishing:
                await self._work.wait_none_open()
        except TimeoutError:
            too_late = Overloaded("the server stopped before this answer was finished", retry_after_s=RETRY_AFTER_S)
            num_ended_early = self._flights.fail_all(too_late)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_OUT_S):
                    await self._work.wait_none_open()
        log.info("drain: done, %d requests ended early", num_ended_early)
        self._drained = Drained(num_ended_early)
        self._answer(self._drained)


def _reschedule(timer: asyncio.Timeout | None, when: float) -> None:
    """Let a running timer go off at another time."""
    if timer is not None and (due := timer.when()) is not None and when < due and not timer.expired():
        timer.reschedule(when)
