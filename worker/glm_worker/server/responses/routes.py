"""The endpoints of /v1/responses."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from glm_edge.errors.failure import Failure
from glm_edge.errors.openai import error_body
from glm_edge.frames import LOOK_HEADER
from glm_worker.errors import RequestRefused
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.edge.body import ClientGone
from glm_worker.server.edge.openapi import described
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.order import Order
from glm_worker.server.responses.background import BackgroundResponse
from glm_worker.server.responses.event_log import EventLog
from glm_worker.server.responses.examples import responses
from glm_worker.server.responses.intake import Accepted, Intake, find
from glm_worker.server.responses.queries import PAGE, READING, page_of, reading_of
from glm_worker.server.responses.replies import ResponseReplies
from glm_worker.server.responses.schema import ResponseRequest
from glm_worker.server.responses.store import Kept, Store, StoreLimits
from glm_worker.server.thinking.visibility import visible
from glm_worker.server.thinking.wish import ThinkingWish

Json = dict[str, Any]

PATH = "/v1/responses"
_SURFACE = "OpenAI responses"
LIMITS = StoreLimits()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Json).decode
SWEEP_S = 30.0  # how much longer than its time a response may be in memory; it is not told any more


class Responses(Surface):
    """What is stored is the application's, and goes with it."""

    paths: tuple[str, ...] = (PATH,)

    def error_body(self, failure: Failure, request_id: str) -> Json:  # noqa: ARG002 - the shape of Surface
        return error_body(failure)

    def router(self, backend: Backend) -> APIRouter:
        router = APIRouter()
        endpoints = _Endpoints(backend, Store(LIMITS))
        one = f"{PATH}/{{response_id}}"
        examples = responses(backend.checkpoint.name)
        create = described(
            "Make a response",
            surface=_SURFACE,
            reads=ResponseRequest,
            examples=examples,
            answers=["Response"],
            streams=True,
            thinks=True,
        )
        of_one = partial(described, surface=_SURFACE, finds=True)
        retrieve = of_one("Show a stored response", answers=["Response"], streams=True, query=READING)
        delete = of_one("Forget a stored response", answers=["Deleted"])
        cancel = of_one("End a response in the background", answers=["Response"])
        list_items = of_one("List what a stored response was made of", answers=["ItemList"], query=PAGE)
        router.post(PATH, **create)(endpoints.create)
        router.get(one, **retrieve)(endpoints.retrieve)
        router.delete(one, **delete)(endpoints.delete)
        router.post(f"{one}/cancel", **cancel)(endpoints.cancel)
        router.get(f"{one}/input_items", **list_items)(endpoints.list_input_items)
        return router


class _Endpoints:
    def __init__(self, backend: Backend, store: Store) -> None:
        self._backend = backend
        self._store = store
        self._intake = Intake(store, backend.group)
        self._timer: asyncio.TimerHandle | None = None

    async def create(self, request: Request) -> Response:
        context = self._backend.begin(request)
        accepted: list[Accepted] = []

        def intake(body: bytes, context: Context) -> Order:
            accepted.append(self._intake.accept(body, context))
            return accepted[0].order

        order = await self._backend.order(request, intake, context)
        if order is None:
            return Response(status_code=499)  # nobody reads it
        (asked,) = accepted
        try:
            order = await self._backend.ready(
                order, request.headers, None if asked.request.background else request.receive
            )
        except ClientGone:
            return Response(status_code=499)
        headers = _headers(context)
        if asked.request.background:
            return self._begin(asked, order, request, {**headers, **order.headers})
        keep = partial(self._keep, asked) if asked.request.store else _keep_nothing
        return self._backend.exchange(request, order, self._replies(asked, keep), headers)

    def _begin(self, asked: Accepted, order: Order, request: Request, headers: dict[str, str]) -> Response:
        """Start a response that goes on without its client."""
        replies = self._replies(asked, partial(self._complete, asked))
        making = BackgroundResponse(order, replies, self._backend.flights, self._backend.spans, self._backend.work)
        making.start(request.headers)
        self._store.begin(asked.id, asked.tenant, asked.items, making, making.log)
        if making.log is not None:
            return _events(making.log, -1, headers)
        return JSONResponse(making.snapshot(), headers=headers)

    async def retrieve(self, request: Request, response_id: str) -> Response:
        context, kept = self._found(request, response_id)
        reading = reading_of(request.query_params)
        if not reading.stream:
            return await self._told(kept, context, reading.headers)
        if kept.log is None:
            raise RequestRefused(
                "stream: only a response that was made with background: true and stream: true can be streamed again",
                param="stream",
                code="invalid_value",
            )
        if kept.log.tells_reasoning and not _sees_reasoning(context):
            raise RequestRefused(
                "stream: the events of this response tell reasoning, which is hidden from you; read it without stream",
                param="stream",
                code="invalid_value",
            )
        return _events(kept.log, reading.starting_after, _headers(context) | reading.headers)

    async def delete(self, request: Request, response_id: str) -> Response:
        context, kept = self._found(request, response_id)
        self._store.drop(context.caller.tenant, kept.id.digits)
        kept.on_read()  # nobody can any more
        if kept.making is not None:
            await kept.making.cancel()
        deleted = {"id": response_id, "object": "response", "deleted": True}
        return JSONResponse(deleted, headers=_headers(context))

    async def cancel(self, request: Request, response_id: str) -> Response:
        context, kept = self._found(request, response_id)
        standing = kept.json()
        if not (await self._backend.lanes.run(standing, lambda: _decode(standing)))["background"]:
            raise RequestRefused(
                "only a response that is made with background: true can be cancelled; close the connection of another",
                code="invalid_value",
            )
        if kept.making is not None:
            await kept.making.cancel()
        _, kept = self._found(request, response_id)
        return await self._told(kept, context)

    async def list_input_items(self, request: Request, response_id: str) -> Response:
        context, kept = self._found(request, response_id)
        page = page_of(request.query_params)
        told = await self._backend.lanes.run(
            kept.input_items, lambda: _encode(page.of(_visible(kept.items(), context)))
        )
        return Response(told, media_type="application/json", headers=_headers(context))

    def _found(self, request: Request, response_id: str) -> tuple[Context, Kept]:
        context = self._backend.context(request)
        return context, find(self._store, context.caller.tenant, response_id, self._backend.group)

    async def _told(self, kept: Kept, context: Context, headers: Mapping[str, str] | None = None) -> Response:
        """Return the response as it stands now, as this caller may read it: not everybody may who has the same tenant.

        One of megabytes is taken apart in a thread.
        """
        all_headers = _headers(context) | dict(headers or {})
        if kept.making is None and LOOK_HEADER not in context.caller.headers:
            kept.on_read()
        told = kept.json()
        if not _sees_reasoning(context):
            whole = told
            told = await self._backend.lanes.run(whole, lambda: _without_reasoning(whole, context))
        return Response(told, media_type="application/json", headers=all_headers)

    def _replies(self, asked: Accepted, keep: Callable[[Json], None]) -> ResponseReplies:
        return ResponseReplies(asked, self._backend.checkpoint.name, asked.order.created, _in_loop(keep))

    def _keep(self, asked: Accepted, response: Json) -> None:
        self._store.keep(asked.id, asked.tenant, asked.items, response)
        self._sweep_later()

    def _complete(self, asked: Accepted, response: Json) -> None:
        self._store.complete(asked.id, response)
        self._sweep_later()

    def _sweep_later(self) -> None:
        """See to it that what is kept goes when its time is over, also when nobody asks for anything then."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        self._store.sweep()
        if len(self._store):
            self._sweep_later()


def _in_loop(keep: Callable[[Json], None]) -> Callable[[Json], None]:
    """Return what keeps in this loop's thread, whichever calls it. Of a long answer that is another one, which has to
    wake the loop next, so the response is kept before anybody is told of it.
    """
    loop = asyncio.get_running_loop()

    def kept(response: Json) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop.call_soon_threadsafe(keep, response)
        else:
            keep(response)

    return kept


def _keep_nothing(_: Json) -> None:
    pass


def _headers(context: Context) -> dict[str, str]:
    return {"x-request-id": context.caller.request_id}


def _without_reasoning(response: bytes, context: Context) -> bytes:
    body = _decode(response)
    return _encode(body | {"output": _visible(body["output"], context)})


def _visible(items: list[Json], context: Context) -> list[Json]:
    return items if _sees_reasoning(context) else [item for item in items if item["type"] != "reasoning"]


def _sees_reasoning(context: Context) -> bool:
    return visible(context.policy.reasoning, context.caller.role, ThinkingWish())


def _events(log: EventLog, after: int, headers: dict[str, str]) -> Response:
    """Return the events past this number, and those to come. Its client may leave and come back."""
    unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(log.follow(after), media_type="text/event-stream", headers={**unbuffered, **headers})
