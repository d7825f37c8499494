"""Z.ai's endpoints: the general one, and the one of its coding plan."""

from typing import Any

from fastapi import APIRouter, Request, Response

from glm_edge.errors.failure import Failure
from glm_edge.errors.zai import error_body
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.edge.openapi import described
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai import examples
from glm_worker.server.openai.usage import Progress
from glm_worker.server.openai.utilities.models import add_models
from glm_worker.server.openai.zai.intake import order_of
from glm_worker.server.openai.zai.replies import ZaiReplies
from glm_worker.server.openai.zai.request import ZaiChatRequest
from glm_worker.server.refusals import parse

_SURFACE = "Z.ai"
PATHS = ("/api/paas/v4", "/api/coding/paas/v4")


class Zai(Surface):
    paths: tuple[str, ...] = PATHS

    def error_body(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - the shape of Surface
        return error_body(failure)

    def router(self, backend: Backend) -> APIRouter:
        router = APIRouter()
        for path in PATHS:
            _add_chat(router, backend, path)
            add_models(router, backend, path, surface=_SURFACE)
        return router


def _add_chat(router: APIRouter, backend: Backend, path: str) -> None:
    @router.post(
        f"{path}/chat/completions",
        **described(
            "Answer a chat",
            surface=_SURFACE,
            reads=ZaiChatRequest,
            examples=examples.zai_chats(backend.checkpoint.name),
            answers=["Zai.ChatCompletion"],
            streams=True,
            thinks=True,
        ),
    )
    async def create_chat_completion(request: Request) -> Response:
        chat = _Chat(backend.flights.progress)
        return await backend.answer(request, chat.order, chat.replies)


class _Chat:
    """One request, from its body to its replies."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def order(self, body: bytes, context: Context) -> Order:
        self._request = parse(ZaiChatRequest, body)
        self._request_id = self._request.request_id or context.caller.request_id
        return order_of(self._request, context)

    def replies(self, order: Order, model: str, created: int) -> ZaiReplies:
        return ZaiReplies(
            order,
            model,
            created,
            self._request_id,
            streams_arguments=bool(self._request.tool_stream),
            progress=self._progress if self._request.wants_continuous_usage else None,
        )
