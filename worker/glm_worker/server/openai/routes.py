"""The endpoints of OpenAI's API."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_worker.server.backend import Backend, Surface
from glm_worker.server.openai.intake import chat_order, completion_order
from glm_worker.server.openai.replies import ChatReplies, CompletionReplies, error_body
from glm_worker.server.refusals import Failure, model_not_found

Json = dict[str, Any]


class OpenAI(Surface):
    """The surface that also has every path that is nobody's."""

    paths: tuple[str, ...] = ("/",)

    def error_body(self, failure: Failure, request_id: str) -> Json:  # noqa: ARG002 - the shape of Surface
        return error_body(failure)

    def router(self, backend: Backend) -> APIRouter:
        router = APIRouter()

        @router.post("/v1/chat/completions")
        async def create_chat_completion(request: Request) -> Response:
            return await backend.answer(request, chat_order, ChatReplies)

        @router.post("/v1/completions")
        async def create_completion(request: Request) -> Response:
            return await backend.answer(request, completion_order, CompletionReplies)

        @router.get("/v1/models")
        async def list_models() -> Response:
            return JSONResponse({"object": "list", "data": [_model(backend)]})

        @router.get("/v1/models/{name:path}")
        async def retrieve_model(name: str) -> Response:
            if name != backend.checkpoint.name:
                raise model_not_found(name, backend.checkpoint.name)
            return JSONResponse(_model(backend))

        return router


def _model(backend: Backend) -> Json:
    return {
        "id": backend.checkpoint.name,
        "object": "model",
        "created": backend.started,
        "owned_by": "glm-operator",
        "max_model_len": backend.flights.room.num_tokens,
    }
