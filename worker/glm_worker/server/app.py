"""The application: the surfaces side by side, and each error in the words of the surface it happened on."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from glm_edge.errors.failure import Failure
from glm_edge.http.protocol import Answer
from glm_worker.errors import GlmWorkerError
from glm_worker.server.anthropic.routes import Anthropic
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.edge.openapi import add_description
from glm_worker.server.edge.request_ids import RequestIds
from glm_worker.server.jobs.context import request_id_of
from glm_worker.server.openai.routes import OpenAI
from glm_worker.server.openai.zai.routes import Zai
from glm_worker.server.refusals import failure_of, shortened
from glm_worker.server.responses.routes import Responses

_CHATS = ("/chat/completions", "/messages", "/responses")  # in paths: what a base model refuses
_UNREAD = (408, 413)  # after these the rest of the body is not read


def _surfaces() -> tuple[Surface, ...]:
    """Return all surfaces; the last has every path that is nobody's."""
    return (Anthropic(), Zai(), Responses(), OpenAI())


def _surface_of(path: str) -> Surface:
    served = _surfaces()
    return next((each for each in served if path.startswith(each.paths)), served[-1])


def _id_headers(path: str) -> tuple[str, ...]:
    """Return the headers that tell the id of a request at this path."""
    return ("x-request-id", "request-id") if isinstance(_surface_of(path), Anthropic) else ("x-request-id",)


def error_of_protocol(path: str, headers: Headers, failure: Failure) -> Answer:
    """Return an error about what is no request yet, in the words of the surface with this path."""
    surface, request_id = _surface_of(path), request_id_of(headers)
    return Answer(
        surface.error_status(failure),
        {**failure.headers, **dict.fromkeys(_id_headers(path), request_id)},
        json.dumps(surface.error_body(failure, request_id)).encode(),
    )


def _about(backend: Backend) -> str:
    """Return what is particular about this deployment, as Markdown."""
    checkpoint, reasoning = backend.checkpoint, backend.policy().reasoning
    num_tokens = backend.flights.room.num_tokens
    lines = [f"The model is `{checkpoint.name}`. A prompt and its answer have at most {num_tokens} tokens together."]
    if checkpoint.is_base:
        lines.append("It is a base model: it continues texts (`/v1/completions`) and has no chat template.")
        return "\n\n".join(lines)
    by_template = "enabled" if checkpoint.traits.thinks_by_default else "disabled"
    mode = by_template if reasoning.default == "template" else reasoning.default
    lines.append(
        f"Thinking is `{mode}` where a request says nothing"
        + (f" (from a score of {reasoning.auto_threshold:g} on)" if mode == "auto" else "")
        + "; `thinking`, `reasoning_effort`, `reasoning` and `chat_template_kwargs` change it for a request."
    )
    if reasoning.max_thinking_tokens is not None:
        lines.append(f"A thought has at most {reasoning.max_thinking_tokens} tokens; then the answer follows.")
    return "\n\n".join(lines)


def make_app(backend: Backend) -> FastAPI:
    """Return the application. It keeps nothing itself."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    for surface in _surfaces():
        app.include_router(surface.router(backend))
    without = _CHATS if backend.checkpoint.is_base else ()
    add_description(app, title=backend.checkpoint.name, description=lambda: _about(backend), without=without)

    def respond(request: Request, failure: Failure, headers: Mapping[str, str] | None = None) -> Response:
        surface = _surface_of(request.scope["path"])
        closing = {"connection": "close"} if failure.status in _UNREAD else {}
        request_id = request_id_of(request.headers)
        return JSONResponse(
            surface.error_body(failure, request_id),
            status_code=surface.error_status(failure),
            headers={**(headers or {}), **failure.headers, **closing, "x-request-id": request_id},
        )

    async def on_error(request: Request, error: Exception) -> Response:
        return respond(request, failure_of(error))

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = f"{shortened(request.method)} {shortened(request.scope['path'])}: {error.detail}"
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return respond(request, Failure(error.status_code, what, "invalid_request_error", code=code), error.headers)

    app.add_exception_handler(GlmWorkerError, on_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_error)
    app.add_middleware(RequestIds, names=_id_headers)
    return app
