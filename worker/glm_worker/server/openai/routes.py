"""The endpoints of OpenAI's API, and those that other servers of open models have beside it."""

from typing import Any

from fastapi import APIRouter, Request, Response

from glm_edge.errors.failure import Failure
from glm_edge.errors.openai import error_body
from glm_worker.server.backend import Backend, Surface
from glm_worker.server.edge.openapi import described
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai import examples
from glm_worker.server.openai.chat import intake as chat_intake
from glm_worker.server.openai.chat.replies import ChatReplies
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.openai.completions import intake as completion_intake
from glm_worker.server.openai.completions.replies import CompletionReplies
from glm_worker.server.openai.completions.request import CompletionRequest
from glm_worker.server.openai.usage import Progress
from glm_worker.server.openai.utilities.absent import add_absent
from glm_worker.server.openai.utilities.models import add_models
from glm_worker.server.openai.utilities.probes import add_probes
from glm_worker.server.openai.utilities.tokens import add_tokens
from glm_worker.server.refusals import parse


class OpenAI(Surface):
    """The surface that also has every path that is nobody's."""

    paths: tuple[str, ...] = ("/",)

    def error_body(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - the shape of Surface
        return error_body(failure)

    def router(self, backend: Backend) -> APIRouter:
        router = APIRouter()

        name = backend.checkpoint.name

        @router.post(
            "/v1/chat/completions",
            **described(
                "Answer a chat",
                surface="OpenAI",
                reads=ChatCompletionRequest,
                examples=examples.chats(name),
                answers=["ChatCompletion"],
                streams=True,
                thinks=True,
            ),
        )
        async def create_chat_completion(request: Request) -> Response:
            chat = _Chat(backend.flights.progress)
            return await backend.answer(request, chat.order, chat.replies)

        @router.post(
            "/v1/completions",
            **described(
                "Continue a text",
                surface="OpenAI",
                reads=CompletionRequest,
                examples=examples.completions(name),
                answers=["TextCompletion"],
                streams=True,
            ),
        )
        async def create_completion(request: Request) -> Response:
            completion = _Completion(backend.flights.progress)
            return await backend.answer(request, completion.order, completion.replies)

        add_models(router, backend, "/v1", surface="OpenAI", others=["Anthropic"])
        add_tokens(router, backend)
        add_probes(router, backend)
        add_absent(router, backend)
        return router


class _Chat:
    """One request, from its body to its replies."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def order(self, body: bytes, context: Context) -> Order:
        self._request = parse(ChatCompletionRequest, body)
        return chat_intake.order_of(self._request, context)

    def replies(self, order: Order, model: str, created: int) -> ChatReplies:
        return ChatReplies(order, model, created, self._progress if self._request.wants_continuous_usage else None)


class _Completion:
    """One request, from its body to its replies."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def order(self, body: bytes, context: Context) -> Order:
        self._request = parse(CompletionRequest, body)
        order = completion_intake.order_of(self._request, context)
        self._echoed = completion_intake.echoed(self._request, context.checkpoint)
        return order

    def replies(self, order: Order, model: str, created: int) -> CompletionReplies:
        progress = self._progress if self._request.wants_continuous_usage else None
        return CompletionReplies(order, model, created, progress, self._echoed)
