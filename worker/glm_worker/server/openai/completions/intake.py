"""From the body of a completion to its order. No I/O, any thread. Raises RequestRefused."""

import secrets
from collections.abc import Sequence

from glm_worker.errors import RequestRefused
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.accept import accept_text, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.prompt import Prompt
from glm_worker.server.jobs.wishes import ParamNames
from glm_worker.server.openai.completions.infill import infill_prompt
from glm_worker.server.openai.completions.request import CompletionRequest
from glm_worker.server.openai.generation import wishes_of
from glm_worker.server.refusals import parse

_NAMES = ParamNames(prompt="prompt")


def completion_order(body: bytes, context: Context) -> Order:
    """Return the order of a /v1/completions body."""
    return order_of(parse(CompletionRequest, body), context)


def order_of(request: CompletionRequest, context: Context) -> Order:
    check_model(request.model, context)
    return accept_text(
        _prompts(request, context.checkpoint),
        wishes_of(request, context.checkpoint),
        context,
        order_id=context.order_id(f"cmpl-{secrets.token_hex(16)}"),
        params=_NAMES,
    )


def _prompts(request: CompletionRequest, checkpoint: Checkpoint) -> Sequence[Prompt]:
    if not request.suffix:
        return request.prompts
    prompts: list[Prompt] = []
    for prompt in request.prompts:
        if not isinstance(prompt, str):
            raise RequestRefused("suffix goes with a prompt of text", param="suffix", code="invalid_value")
        prompts.append(infill_prompt(prompt, request.suffix, checkpoint))
    return prompts


def echoed(request: CompletionRequest, checkpoint: Checkpoint) -> list[str]:
    """Return the texts of the prompts where they are to be told before their answers, else nothing."""
    if not request.echo:
        return []
    return [each if isinstance(each, str) else checkpoint.tokenizer.decode(each) for each in request.prompts]
