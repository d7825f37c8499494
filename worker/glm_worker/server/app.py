"""The application: the surfaces side by side, and each error in the words of the surface it happened on."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glm_worker.errors import GlmWorkerError
from glm_worker.server.anthropic.routes import Anthropic
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.jobs.context import Caller
from glm_worker.server.openai.routes import OpenAI
from glm_worker.server.refusals import Failure, failure_of, shortened


def _surfaces() -> tuple[Surface, ...]:
    """Return all surfaces; the last has every path that is nobody's."""
    return (Anthropic(), OpenAI())


def make_app(backend: Backend) -> FastAPI:
    """Return the application. It keeps nothing itself."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    served = _surfaces()
    for surface in served:
        app.include_router(surface.router(backend))

    def respond(request: Request, failure: Failure, headers: Mapping[str, str] | None = None) -> Response:
        path = request.scope["path"]
        surface = next((each for each in served if path.startswith(each.paths)), served[-1])
        request_id = Caller.of(request.headers, backend.policy()).request_id
        return JSONResponse(
            surface.error_body(failure, request_id),
            status_code=surface.error_status(failure),
            headers={**(headers or {}), **failure.headers, "x-request-id": request_id},
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
    return app
