"""What no sampler can do for a request: ids outside of the vocabulary, numbers that are none. Pure.

The server refuses such requests in the words of its surface. Here they end alone, where they would end the group.
"""

import math

from glm_worker.request import EngineRequest

MAX_LOGPROBS = 20
_NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
MAX_TEMPERATURE = 1e6  # every token is as likely then; far above it fp32 divides by infinity


def why_it_cannot_be_sampled(request: EngineRequest, vocab_size: int) -> str | None:
    """Return the sentence that says why the engine cannot sample for this request, or None if it can."""
    return (
        _wrong_ids(request, vocab_size) or _wrong_numbers(request) or _wrong_shape(request) or _wrong_beginning(request)
    )


def _wrong_ids(request: EngineRequest, vocab_size: int) -> str | None:
    for what, tokens in (("prompt", request.prompt_token_ids), ("answer so far", request.answer_token_ids)):
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
            return f"a token id of the {what} is outside of the vocabulary of {vocab_size} tokens"
    named = {
        "logit_bias": request.sampling.logit_bias,
        "bad_words": [id_ for word in request.bad_words for id_ in word],
        "forced_ids": request.thought.forced_ids if request.thought is not None else (),
    }
    for where, ids in named.items():
        if outside := [id_ for id_ in ids if not 0 <= id_ < vocab_size]:
            return f"token id {outside[0]} in {where} is outside of the vocabulary of {vocab_size} tokens"
    return None


def _wrong_numbers(request: EngineRequest) -> str | None:
    sampling = request.sampling
    numbers = [(name, getattr(sampling, name)) for name in _NUMBERS]
    numbers += [("logit_bias", value) for value in sampling.logit_bias.values()]
    for name, value in numbers:
        if not math.isfinite(value):
            return f"{name} {value} is not a finite number"
    if not 0 <= sampling.temperature <= MAX_TEMPERATURE:
        return f"temperature {sampling.temperature} is not between 0 and {MAX_TEMPERATURE:g}"
    if sampling.repetition_penalty <= 0:
        return f"repetition_penalty {sampling.repetition_penalty} is not above 0"
    if request.num_logprobs is not None and not 0 <= request.num_logprobs <= MAX_LOGPROBS:
        return f"num_logprobs {request.num_logprobs} is not between 0 and {MAX_LOGPROBS}"
    return None


def _wrong_shape(request: EngineRequest) -> str | None:
    if not all(request.bad_words):
        return "a bad word has no tokens; at least 1 is needed"
    thought = request.thought
    if thought is not None and thought.forced_ids[-1:] != [thought.close_id]:
        return "forced_ids does not end with close_id: a thought that is forced to end would stay open"
    return None


def _wrong_beginning(request: EngineRequest) -> str | None:
    answer = request.answer_token_ids
    if len(answer) > request.max_tokens:
        return f"the answer so far has {len(answer)} tokens, more than max_tokens {request.max_tokens}"
    if not set(request.stop_token_ids).isdisjoint(answer[:-1]):
        return "the answer so far goes on after a stop token"
    return None
