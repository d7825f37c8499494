"""/tokenize and /detokenize, in vLLM's shapes: what a prompt is to the model, without running it."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from glm_worker.errors import RequestRefused
from glm_worker.server.backend import Backend, declared_bytes
from glm_worker.server.edge.body import ClientGone, read_body
from glm_worker.server.edge.bounds import check_json
from glm_worker.server.edge.openapi import described
from glm_worker.server.fields import Items, Strict, conflict
from glm_worker.server.jobs.accept import accept_chat, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import Conversation
from glm_worker.server.jobs.wishes import Wishes
from glm_worker.server.openai import examples
from glm_worker.server.openai.bounds import MAX_MESSAGES
from glm_worker.server.openai.chat.messages import AssistantMessage, Message, turns_of
from glm_worker.server.openai.chat.tools import Tools, offered
from glm_worker.server.openai.thinking import ThinkingFields
from glm_worker.server.refusals import parse
from glm_worker.server.text.long_json import json_of

Json = dict[str, Any]


class TokenizeRequest(ThinkingFields):
    """POST /tokenize: a text, or a chat with what its prompt depends on."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[Items[Message] | None, Field(min_length=1, max_length=MAX_MESSAGES)] = None
    tools: Tools = None
    add_generation_prompt: bool | None = Field(None, description="false: end with the last message, the assistant's.")
    continue_final_message: bool | None = Field(None, description="The same as add_generation_prompt: false.")
    add_special_tokens: bool | None = Field(None, description="Of a text. Default: true, as for completions.")
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise conflict("prompt", "give either prompt or messages")
        if self.messages is not None and self.add_special_tokens:
            raise conflict("add_special_tokens", "add_special_tokens goes with prompt; the template has its own")
        if self.goes_on and not (self.messages and isinstance(self.messages[-1], AssistantMessage)):
            raise conflict(
                "add_generation_prompt", "to end with the last message, that must be a message of the assistant"
            )
        return self

    @property
    def goes_on(self) -> bool:
        return bool(self.continue_final_message) or self.add_generation_prompt is False


class DetokenizeRequest(Strict):
    """POST /detokenize"""

    model: str | None = None
    tokens: Items[int]


def add_tokens(router: APIRouter, backend: Backend) -> None:
    """Add /tokenize and /detokenize."""

    @router.post(
        "/tokenize",
        **described(
            "Show the tokens of a text or a chat",
            surface="Utilities",
            reads=TokenizeRequest,
            examples=examples.texts(backend.checkpoint.name),
            answers=["Tokens"],
            thinks=True,
        ),
    )
    async def tokenize(request: Request) -> Response:
        return await _answered(request, backend, _tokenized)

    @router.post(
        "/detokenize",
        **described(
            "Show the text of tokens",
            surface="Utilities",
            reads=DetokenizeRequest,
            examples={"three tokens": {"tokens": [5, 6, 7]}},
            answers=["Text"],
        ),
    )
    async def detokenize(request: Request) -> Response:
        return await _answered(request, backend, _detokenized)


async def _answered(request: Request, backend: Backend, work: Callable[[bytes, Context], Json]) -> Response:
    """Return the JSON of what work makes of the body, in a thread where that is long."""
    context = backend.context(request)
    try:
        with backend.bodies.reading(declared_bytes(request.headers)) as reading:
            body = await read_body(request.receive, backend.checkpoint, reading)
            reply = await backend.taken(body, lambda: json_of(work(body, context)), request.receive)
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    return Response(reply, media_type="application/json", headers={"x-request-id": context.caller.request_id})


def _tokenized(body: bytes, context: Context) -> Json:
    check_json(body)
    request, checkpoint = parse(TokenizeRequest, body), context.checkpoint
    _check_model(request.model, context)
    token_ids = _ids_of(request, context)
    names = [checkpoint.tokenizer.name_of(token_id) for token_id in token_ids] if request.return_token_strs else None
    return {
        "count": len(token_ids),
        "max_model_len": checkpoint.max_model_len,
        "tokens": token_ids,
        "token_strs": names,
    }


def _ids_of(request: TokenizeRequest, context: Context) -> list[int]:
    checkpoint = context.checkpoint
    if request.prompt is None:
        conversation = Conversation(
            turns=turns_of(request.messages or ()),
            tools=offered(request.tools or ()),
            thinking=request.thinking_wish(),
            goes_on=request.goes_on,
        )
        return list(accept_chat(conversation, Wishes(), context, order_id="tokenize").jobs[0].prompt_token_ids)
    if not request.prompt:
        return []
    checkpoint.check_length(request.prompt, "prompt")
    return checkpoint.tokenizer.encode(request.prompt, add_special_tokens=request.add_special_tokens is not False)


def _detokenized(body: bytes, context: Context) -> Json:
    check_json(body)
    request, checkpoint = parse(DetokenizeRequest, body), context.checkpoint
    _check_model(request.model, context)
    for number, token_id in enumerate(request.tokens):
        if not 0 <= token_id < checkpoint.vocab_size:
            raise RequestRefused(
                f"tokens[{number}] is no token; allowed are 0 to {checkpoint.vocab_size - 1}",
                param=f"tokens[{number}]",
                code="invalid_value",
            )
    return {"prompt": checkpoint.tokenizer.decode(request.tokens)}


def _check_model(model: str | None, context: Context) -> None:
    """Check the model's name, which these two endpoints can do without."""
    if model is not None:
        check_model(model, context)
