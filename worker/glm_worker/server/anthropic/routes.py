"""The endpoints of Anthropic's API, at the root and at the path where Z.ai has them for coding agents."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from glm_edge.errors.anthropic import error_body, status_of
from glm_edge.errors.failure import Failure
from glm_worker.server.anthropic import examples
from glm_worker.server.anthropic.intake import Intake
from glm_worker.server.anthropic.replies import MessageReplies
from glm_worker.server.anthropic.schema import CountRequest, MessagesRequest
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.edge.openapi import described
from glm_worker.server.jobs.context import Context, request_id_of
from glm_worker.server.jobs.order import Order
from glm_worker.server.refusals import failure_of, model_not_found

Json = dict[str, Any]

SURFACE = "Anthropic"
ZAI_PATH = "/api/anthropic"
VERSION_HEADER = "anthropic-version"


class Anthropic(Surface):
    """Also answers /v1/models where a client says that it speaks this API; else that path is OpenAI's."""

    paths: tuple[str, ...] = ("/v1/messages", ZAI_PATH)

    def error_body(self, failure: Failure, request_id: str) -> Json:
        return error_body(failure, request_id)

    def error_status(self, failure: Failure) -> int:
        return status_of(failure)

    def router(self, backend: Backend) -> APIRouter:
        router = APIRouter(route_class=_Route)
        _add_messages(router, backend, "", Intake())
        _add_messages(router, backend, ZAI_PATH, Intake(any_model=True))
        _add_models(router, backend, ZAI_PATH)
        by_version = APIRouter(route_class=_RouteOfVersion, include_in_schema=False)  # one path, two shapes
        _add_models(by_version, backend, "")
        router.include_router(by_version)
        return router


def _add_messages(router: APIRouter, backend: Backend, path: str, intake: Intake) -> None:
    name = backend.checkpoint.name

    @router.post(
        f"{path}/v1/messages",
        **described(
            "Answer a message",
            surface=SURFACE,
            reads=MessagesRequest,
            examples=examples.messages(name),
            answers=["Message"],
            streams=True,
            thinks=True,
        ),
    )
    async def create_message(request: Request) -> Response:
        return await backend.answer(request, partial(intake.message, room=backend.flights.room), MessageReplies)

    @router.post(
        f"{path}/v1/messages/count_tokens",
        **described(
            "Count the tokens of a prompt",
            surface=SURFACE,
            reads=CountRequest,
            examples=examples.counts(name),
            answers=["InputTokens"],
            thinks=True,
        ),
    )
    async def count_tokens(request: Request) -> Response:
        context = backend.begin(request)
        order = await backend.order(request, intake.prompt, context)
        if order is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse({"input_tokens": order.num_prompt_tokens}, headers=_headers(order, context))


def _add_models(router: APIRouter, backend: Backend, path: str) -> None:
    listed = described("List the models", surface=SURFACE, answers=["Anthropic.ModelList"])
    shown = described("Show a model", surface=SURFACE, answers=["Anthropic.Model"], finds=True)

    @router.head(f"{path}/v1/models", include_in_schema=False)
    @router.get(f"{path}/v1/models", **listed)
    async def list_models(request: Request) -> Response:
        model = _model(backend)
        models = {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
        return JSONResponse(models, headers={"x-request-id": request_id_of(request.headers)})

    @router.get(f"{path}/v1/models/{{name:path}}", **shown)
    async def retrieve_model(request: Request, name: str) -> Response:
        headers = {"x-request-id": request_id_of(request.headers)}
        if name != backend.checkpoint.name:  # told here: the path alone does not say whose words to use
            failure = failure_of(model_not_found(name, backend.checkpoint.name))
            return JSONResponse(error_body(failure, headers["x-request-id"]), status_of(failure), headers)
        return JSONResponse(_model(backend), headers=headers)


def _headers(order: Order, context: Context) -> dict[str, str]:
    return {**order.headers, "x-request-id": context.caller.request_id}


def _model(backend: Backend) -> Json:
    num_tokens = backend.flights.room.num_tokens
    return {
        "type": "model",
        "id": backend.checkpoint.name,
        "display_name": backend.checkpoint.name,
        "created_at": datetime.fromtimestamp(backend.started, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": num_tokens - 1,
        "max_tokens": num_tokens - 1,
    }


class _Route(APIRoute):
    """Sends the request's id also under the name that this API has for it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if (request_id := headers.get("x-request-id")) is not None:
                    headers["request-id"] = request_id
            await send(message)

        await super().handle(scope, receive, send_named)


class _RouteOfVersion(_Route):
    """Only for clients that say which version of this API they speak."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or VERSION_HEADER not in Headers(scope=scope):
            return Match.NONE, {}
        return super().matches(scope)
