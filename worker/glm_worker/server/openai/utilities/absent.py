"""Endpoints of OpenAI's API that no model which writes text has: refused, each with the reason."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter

from glm_worker.errors import RequestRefused
from glm_worker.server.backend import Backend

_REASONS = {
    "embeddings": "it has no embeddings",
    "rerank": "it ranks nothing",
    "moderations": "it judges nothing",
    "audio/{path:path}": "it neither hears nor speaks",
    "images/{path:path}": "it draws nothing",
    "files": "this server keeps no files",
    "batches": "this server keeps no files",
    "assistants": "use /v1/responses",
    "threads": "use /v1/responses",
}
_METHODS = ["GET", "POST"]


def add_absent(router: APIRouter, backend: Backend) -> None:
    """Answer them with a 404."""
    for path, reason in _REASONS.items():
        router.add_api_route(f"/v1/{path}", _refusing(path, reason, backend), methods=_METHODS, include_in_schema=False)


def _refusing(path: str, reason: str, backend: Backend) -> Callable[[], Coroutine[Any, Any, None]]:
    name = path.partition("/")[0]

    async def refuse() -> None:
        raise RequestRefused(
            f"/v1/{name} is not served: {backend.checkpoint.name} writes text; {reason}", code="not_found", status=404
        )

    return refuse
