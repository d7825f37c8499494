"""The list of models, which has one."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from glm_worker.server.backend import Backend
from glm_worker.server.refusals import model_not_found


def add_models(router: APIRouter, backend: Backend, path: str) -> None:
    """Add {path}/models and one model of it."""

    @router.get(f"{path}/models")
    async def list_models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(backend)]})

    @router.get(f"{path}/models/{{name:path}}")
    async def retrieve_model(name: str) -> Response:
        if name != backend.checkpoint.name:
            raise model_not_found(name, backend.checkpoint.name)
        return JSONResponse(_model(backend))


def _model(backend: Backend) -> dict[str, Any]:
    return {
        "id": backend.checkpoint.name,
        "object": "model",
        "created": backend.started,
        "owned_by": "glm-operator",
        "max_model_len": backend.flights.room.num_tokens,
    }
