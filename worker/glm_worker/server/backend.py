"""What surfaces stand on: how a body becomes a response, whatever the words around it."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers
from starlette.types import Receive

from glm_edge.errors.failure import Failure
from glm_edge.frames import CONTINUED_TYPE, FRAMES_HEADER, GATEWAY_HEADER, BrokenFrames, read_continued
from glm_worker.errors import DeadlinePassed, Overloaded, RequestRefused
from glm_worker.messages import Policy
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.edge.body import ClientGone, read_body
from glm_worker.server.edge.body_room import FREE_BYTES, BodyRoom
from glm_worker.server.edge.bounds import check_json
from glm_worker.server.edge.lanes import Lanes, is_quick
from glm_worker.server.flights.draining import OpenWork
from glm_worker.server.flights.exchange import Exchange
from glm_worker.server.flights.flight import RequestTimes
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.framed import FramedExchange
from glm_worker.server.flights.replies import Replies
from glm_worker.server.flights.spans import NO_SPANS, Spans
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.order import Order
from glm_worker.server.metrics.telemetry import Telemetry
from glm_worker.server.structured.grammars import Grammars
from glm_worker.server.thinking.overload import Overload

log = logging.getLogger(__name__)

Json = dict[str, Any]
Intake = Callable[[bytes, Context], Order]
Result = TypeVar("Result")


class Surface(Protocol):
    """One vendor's API. paths: prefixes of its own; the last surface of the application has all others."""

    paths: tuple[str, ...]

    def router(self, backend: "Backend") -> APIRouter: ...
    def error_body(self, failure: Failure, request_id: str) -> Json: ...

    def error_status(self, failure: Failure) -> int:
        """Return the HTTP status of a failure, where this API has another one than most."""
        return failure.status


@dataclass(frozen=True, kw_only=True)
class Backend:
    """policy: returns what is in force now. started: Unix time. gateway_token: who knows it is the gateway."""

    checkpoint: Checkpoint
    flights: Flights
    telemetry: Telemetry
    rules: Rules
    policy: Callable[[], Policy]
    grammars: Grammars
    started: int
    group: str = "local"
    gateway_token: str = ""
    spans: Spans = NO_SPANS
    bodies: BodyRoom = field(default_factory=BodyRoom)
    lanes: Lanes = field(default_factory=Lanes)
    work: OpenWork = field(default_factory=OpenWork)
    said: set[str] = field(default_factory=set)  # that was written to the log, once

    def begin(self, request: Request) -> Context:
        """Return what a request for an answer meets. Counts what ends here: see context for the others."""
        try:
            return self.context(request)
        except RequestRefused:
            self.telemetry.ended("refused")
            raise

    def context(self, request: Request) -> Context:
        """Return what a request meets, from now on. Raises RequestRefused for a caller who is not told properly."""
        policy = self.policy()
        caller = Caller.of(request.headers, policy, is_of_gateway=self.is_of_gateway(request.headers))
        self._tell_mistakes(caller.overload)
        return Context(checkpoint=self.checkpoint, rules=self.rules, policy=policy, caller=caller)

    async def order(self, request: Request, intake: Intake, context: Context) -> Order | None:
        """Read the body and return the order in it; None when the client is gone. Counts what ends here."""
        try:
            num_declared = declared_bytes(request.headers)
            with self.bodies.reading(num_declared) as reading:
                if num_declared > FREE_BYTES:
                    self._check_room()
                try:
                    sent = await read_body(request.receive, self.checkpoint, reading)
                finally:
                    self.lanes.freed(reading.num_seen)  # also of a body that nothing is made of
                body, context = self._split(sent, request, context)
                if len(body) > FREE_BYTES:
                    self._check_room()  # the queue may have filled while it came
                return await self.taken(body, lambda: _taken_in(body, intake, context), request.receive)
        except RequestRefused:
            self.telemetry.ended("refused")
            raise
        except Overloaded:
            self.telemetry.ended("refused")
            thinks = self.checkpoint.traits.thinks_by_default  # what the body says is not known
            RequestTimes(context.arrived_s, self.telemetry.class_of(thinking=thinks, headers=request.headers)).failed()
            raise
        except ClientGone:
            self.telemetry.ended("cancelled")
            return None
        except Exception:
            self.telemetry.ended("failed")
            raise

    async def taken(self, body: bytes, work: Callable[[], Result], receive: Receive) -> Result:
        """Return what the work makes of a body, in a thread where that is long. Raises ClientGone, and then it is not
        done where its turn has not come.
        """
        if is_quick(body):
            return await self.lanes.run(body, work)
        return await _unless_gone(self.lanes.run(body, work), receive)

    def _check_room(self) -> None:
        """Raise Overloaded where no request would be admitted now. Then nothing is made of a long one either."""
        if (obstacle := self.flights.no_room) is not None:
            raise obstacle

    async def ready(self, order: Order, headers: Headers, receive: Receive | None = None) -> Order:
        """Return the order with its grammar compiled, if it has one. Counts what was decided about thinking.

        headers: of the request, which say what was promised to it. receive: of the client, if nobody else needs the
        order: ClientGone is raised when it leaves meanwhile. Raises DeadlinePassed when the order's time is over.
        """
        if order.thinking is not None:
            self.telemetry.thinking.decided(order.thinking)
        times = RequestTimes(order.arrived_s, self.telemetry.class_of(thinking=order.jobs[0].thinking, headers=headers))
        try:
            return await self._within_its_time(order, receive)
        except (ClientGone, DeadlinePassed):
            self.telemetry.ended("cancelled")
            times.cancelled(time.monotonic())
            raise
        except RequestRefused:  # the client's mistake: no promise is about it
            self.telemetry.ended("refused")
            raise
        except Overloaded:
            self.telemetry.ended("refused")
            times.failed()
            raise
        except Exception:
            self.telemetry.ended("failed")
            times.failed()
            raise

    async def _within_its_time(self, order: Order, receive: Receive | None) -> Order:
        """Return the order with its grammar. Raises DeadlinePassed where it was late already, or is then."""
        if order.deadline_s is not None and order.time_left_s == 0.0:
            raise DeadlinePassed(order.deadline_s)
        if order.recipe is None:
            return order
        compiling = self.grammars.compiled(order.recipe, close_id=order.recipe_close_id)
        try:
            async with asyncio.timeout(order.time_left_s) as deadline:
                return order.with_grammar(await (compiling if receive is None else _unless_gone(compiling, receive)))
        except TimeoutError:
            if order.deadline_s is None or not deadline.expired():
                raise
            raise DeadlinePassed(order.deadline_s) from None

    async def answer(self, request: Request, intake: Intake, replies: Callable[[Order, str, int], Replies]) -> Response:
        """Return the response to a request. replies: makes them of an order, the model's name and the Unix time."""
        context = self.begin(request)
        order = await self.order(request, intake, context)
        if order is None:
            return Response(status_code=499)  # nobody reads it
        try:
            order = await self.ready(order, request.headers, request.receive)
        except ClientGone:
            return Response(status_code=499)
        headers = {"x-request-id": context.caller.request_id}
        of_surface = replies(order, self.checkpoint.name, order.created)
        return self.exchange(request, order, of_surface, headers)

    def exchange(self, request: Request, order: Order, replies: Replies, headers: Mapping[str, str]) -> Response:
        """Return the response to an order: in frames where its gateway asks for them."""
        if not self.is_of_gateway(request.headers) or FRAMES_HEADER not in request.headers:
            return Exchange(order, replies, self.flights, headers, self.spans)
        fingerprint = self.checkpoint.fingerprint
        return FramedExchange(order, replies, self.flights, headers, self.spans, fingerprint=fingerprint)

    def is_of_gateway(self, headers: Headers) -> bool:
        """Tell whether a request comes from the gateway of this deployment, which knows its token."""
        said = headers.get(GATEWAY_HEADER, "").encode("latin-1")
        return bool(self.gateway_token) and hmac.compare_digest(said, self.gateway_token.encode())

    def _tell_mistakes(self, overload: Overload) -> None:
        """Write to the log what the gateway says wrongly, once for each header: it says so with every request."""
        for mistake in overload.mistakes:
            if (header := mistake.partition(" ")[0]) not in self.said:
                self.said.add(header)
                log.warning("the gateway's header %s; it is passed over, now and from now on", mistake)

    def _split(self, body: bytes, request: Request, context: Context) -> tuple[bytes, Context]:
        """Return the client's own body, and the context of the reply that goes on, if one does."""
        if request.headers.get("content-type") != CONTINUED_TYPE or not self.is_of_gateway(request.headers):
            return body, context
        try:
            begun, body = read_continued(body)
        except BrokenFrames as error:
            raise RequestRefused(str(error), code="invalid_value") from error
        if begun.fingerprint != self.checkpoint.fingerprint:
            raise RequestRefused(
                "the reply was begun by a group whose checkpoint or version is another one; this group cannot go on",
                code="cannot_continue",
                status=409,
            )
        return body, context.going_on(begun)


def _taken_in(body: bytes, intake: Intake, context: Context) -> Order:
    check_json(body)
    return intake(body, context)


def declared_bytes(headers: Headers) -> int:
    """Return how long a body is to be, as its client says; 0 where it does not."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


async def _unless_gone(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Return what the work returns; end it and raise ClientGone when the client leaves first."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
