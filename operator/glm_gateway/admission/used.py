"""What a request did use, by how it stands or ended. Pure."""

from glm_gateway.limits.tokens import Usage
from glm_gateway.proxy.relay.outcome import CUT, Outcome
from glm_gateway.proxy.relay.result import Result
from glm_gateway.surfaces.usage import Told


def used_by(result: Result, reserved: Usage, *, in_background: bool = False, is_over: bool = True) -> Usage:
    """Return what a request used, exactly where its reply was closed; of one that broke off what is known: its prompt,
    and its tokens, in thoughts and answer as they were reserved.

    A reply that is no frames, as of a worker from before or from outside, says it in its API's own words. Where it does
    not, all that was reserved counts: nothing may pass a budget unseen. So it does where a client has left before a
    group said that it makes its response in the background: that goes on, and nobody knows its id.

    Whose client has left while a server had the request has used its prompt, as it was reserved: nobody has prompts
    computed for nothing by hanging up. is_over: False while it goes on: then nobody has left.
    """
    progress = result.progress
    if (closed := progress.closed) is not None:
        return Usage(
            closed.num_prompt_tokens, closed.num_cached_tokens, closed.num_answer_tokens, closed.num_reasoning_tokens
        )
    if progress.opened is not None:
        generated = max(1, reserved.answer + reserved.thinking)
        thinking = round(progress.num_tokens * reserved.thinking / generated)  # nobody told these apart yet
        return Usage(progress.opened.num_prompt_tokens, answer=progress.num_tokens - thinking, thinking=thinking)
    if result.told is not None:
        return usage_of(result.told)
    goes_on = in_background and result.is_asked and result.plain_status == 0 and result.failure in (None, CUT)
    if goes_on or 0 < result.plain_status < 400:
        return reserved
    has_left = is_over and result.outcome is Outcome.CANCELLED
    return Usage(prompt=reserved.prompt) if has_left and result.is_asked else Usage()


def usage_of(told: Told) -> Usage:
    return Usage(told.prompt, told.cached, told.answer - told.reasoning, told.reasoning)
