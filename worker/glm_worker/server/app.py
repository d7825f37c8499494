"""The HTTP routes, and what every error looks like on them."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glm_worker.errors import GlmWorkerError, RequestRefused
from glm_worker.server.body import ClientGone, read_body
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.flights import Flights
from glm_worker.server.intake import Job, Rules, chat_job, completion_job
from glm_worker.server.refusals import Failure, failure_of, model_not_found, shortened
from glm_worker.server.replies import replies_to
from glm_worker.server.stream import Exchange
from glm_worker.server.telemetry import Telemetry

log = logging.getLogger(__name__)

INLINE_BODY_BYTES = 16 * 2**10  # larger ones are tokenised in a thread: other streams go on meanwhile


def make_app(
    checkpoint: Checkpoint,
    flights: Flights,
    telemetry: Telemetry,
    rules: Rules = Rules(),  # noqa: B008 - it is frozen
) -> FastAPI:
    """Return the application. It keeps nothing itself."""
    app = FastAPI(openapi_url=None)  # the API is OpenAI's, which describes it
    started = int(time.time())

    async def exchange(request: Request, prepare: Callable[[bytes, Checkpoint], Job]) -> Response:
        try:
            body = await read_body(request.receive, checkpoint)
            in_thread = len(body) > INLINE_BODY_BYTES
            job = await asyncio.to_thread(prepare, body, checkpoint) if in_thread else prepare(body, checkpoint)
            return Exchange(job, replies_to(job, checkpoint.name, int(time.time())), flights)
        except RequestRefused:
            telemetry.ended("refused")
            raise
        except ClientGone:
            telemetry.ended("cancelled")
            return Response(status_code=499)  # nobody reads it
        except Exception:
            telemetry.ended("failed")
            raise

    @app.post("/v1/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        return await exchange(request, lambda body, checkpoint: chat_job(body, checkpoint, rules))

    @app.post("/v1/completions")
    async def create_completion(request: Request) -> Response:
        return await exchange(request, completion_job)

    @app.get("/v1/models")
    async def list_models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(checkpoint.name, started, flights)]})

    @app.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> Response:
        if name != checkpoint.name:
            raise model_not_found(name, checkpoint.name)
        return JSONResponse(_model(name, started, flights))

    app.add_exception_handler(GlmWorkerError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_error)
    return app


def _model(name: str, created: int, flights: Flights) -> dict[str, object]:
    model = {"id": name, "object": "model", "created": created, "owned_by": "glm-operator"}
    return {**model, "max_model_len": flights.room.num_tokens}


async def _on_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - starlette's shape
    return _response(failure_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {shortened(request.url.path)}: {error.detail}"
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return _response(Failure(error.status_code, what, "invalid_request_error", code=code), error.headers)


def _response(failure: Failure, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(failure.body, status_code=failure.status, headers={**(headers or {}), **failure.headers})
