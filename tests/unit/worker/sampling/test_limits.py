"""What no sampler can do for a request is said in a sentence."""

import math
import re

import msgspec
import pytest

from glm_worker.engine.sampling.limits import why_it_cannot_be_sampled
from glm_worker.request import EngineRequest, SamplingParams, Thought
from unit.worker.sampling.answers import EOS, VOCAB_SIZE, a_request, a_thought

WHOLE = a_request(
    sampling=SamplingParams(logit_bias={0: 1.0, VOCAB_SIZE - 1: -1.0}, frequency_penalty=-2, repetition_penalty=1.1),
    bad_words=[[1], [2, 3]],
    num_logprobs=20,
    thought=a_thought(0),
)


def with_sampling(**changes: object) -> EngineRequest:
    return msgspec.structs.replace(WHOLE, sampling=msgspec.structs.replace(WHOLE.sampling, **changes))


def test_what_can_be_sampled_has_no_reason() -> None:
    assert why_it_cannot_be_sampled(WHOLE, VOCAB_SIZE) is None
    for answer in ([1, 2], [1, EOS], [EOS], [1] * WHOLE.max_tokens):
        assert why_it_cannot_be_sampled(msgspec.structs.replace(WHOLE, answer_token_ids=answer), VOCAB_SIZE) is None


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (with_sampling(logit_bias={VOCAB_SIZE: 1.0}), "token id 1024 in logit_bias is outside of the vocabulary"),
        (with_sampling(logit_bias={1: math.nan}), "logit_bias nan is not a finite number"),
        (with_sampling(frequency_penalty=math.inf), "frequency_penalty inf is not a finite number"),
        (with_sampling(temperature=-1.0), r"temperature -1\.0 is not between 0 and 1e\+06"),
        (with_sampling(temperature=1e300), r"temperature 1e\+300 is not between 0 and 1e\+06"),
        (with_sampling(repetition_penalty=0.0), r"repetition_penalty 0\.0 is not above 0"),
        (msgspec.structs.replace(WHOLE, bad_words=[[1, -1]]), "token id -1 in bad_words is outside"),
        (msgspec.structs.replace(WHOLE, bad_words=[[]]), "a bad word has no tokens; at least 1 is needed"),
        (
            msgspec.structs.replace(WHOLE, prompt_token_ids=[1, 5000]),
            "^a token id of the prompt is outside of the vocabulary of 1024 tokens$",
        ),
        (
            msgspec.structs.replace(WHOLE, answer_token_ids=[1, VOCAB_SIZE]),
            "^a token id of the answer so far is outside of the vocabulary of 1024 tokens$",
        ),
        (
            msgspec.structs.replace(WHOLE, answer_token_ids=[1, 2, 3], max_tokens=2),
            "^the answer so far has 3 tokens, more than max_tokens 2$",
        ),
        (
            msgspec.structs.replace(WHOLE, answer_token_ids=[1, EOS, 3]),
            "^the answer so far goes on after a stop token$",
        ),
        (msgspec.structs.replace(WHOLE, num_logprobs=21), "num_logprobs 21 is not between 0 and 20"),
        (
            msgspec.structs.replace(
                WHOLE, thought=Thought(open_id=1, close_id=2, begins_open=True, max_tokens=3, forced_ids=[])
            ),
            "forced_ids does not end with close_id",
        ),
    ],
)
def test_what_cannot_be_sampled_is_named_with_its_value(request_: EngineRequest, reason: str) -> None:

    found = why_it_cannot_be_sampled(request_, VOCAB_SIZE)
    assert found is not None
    assert re.search(reason, found)
