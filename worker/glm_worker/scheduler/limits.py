"""What one generation can hold and do in a step, and the requests that can never fit it."""

from dataclasses import dataclass

from glm_worker.messages import EngineLimits
from glm_worker.request import EngineRequest


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The numbers every rank must agree on before the first step."""

    max_model_len: int  # tokens of prompt and answer together
    max_batch_tokens: int  # tokens computed in one step
    max_num_seqs: int  # sequences that run at once
    num_blocks: int
    block_size: int


def why_it_never_fits(request: EngineRequest, limits: EngineLimits | SchedulerLimits) -> str | None:
    """Return the sentence that says why this request can never finish here, or None if it can.

    The server refuses such a request; the scheduler ends it at once rather than keep it waiting for ever.
    """
    num_prompt = len(request.prompt_token_ids)
    if num_prompt < 1:
        return "the prompt has no tokens; at least 1 is needed"
    if request.max_tokens < 1:
        return f"max_tokens {request.max_tokens} is below 1"
    wanted = f"{num_prompt} prompt tokens and {request.max_tokens} answer tokens"
    if num_prompt + request.max_tokens > limits.max_model_len:
        return f"{wanted} are more than the {limits.max_model_len} tokens of the model"
    capacity = limits.num_blocks * limits.block_size
    if num_prompt + request.max_tokens > capacity:
        return f"{wanted} are more than the {capacity} tokens of the KV cache"
    return None
