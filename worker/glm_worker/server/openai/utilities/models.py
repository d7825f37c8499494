"""The list of models, which has one."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from glm_worker.server.backend import Backend
from glm_worker.server.edge.openapi import described
from glm_worker.server.refusals import model_not_found


def add_models(router: APIRouter, backend: Backend, path: str, *, surface: str, others: Sequence[str] = ()) -> None:
    """Add {path}/models and one model of it. others: surfaces that answer the same path where a client names them."""
    lists = [f"{each}.ModelList" for each in ("OpenAI", *others)]
    models = [f"{each}.Model" for each in ("OpenAI", *others)]

    @router.head(f"{path}/models", include_in_schema=False)
    @router.get(f"{path}/models", **described("List the models", surface=surface, others=others, answers=lists))
    async def list_models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(backend)]})

    @router.get(
        f"{path}/models/{{name:path}}",
        **described("Show a model", surface=surface, others=others, answers=models, finds=True),
    )
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
