"""The order of work on a row, and that a token depends on its own request only."""

import math
from collections.abc import Sequence

import msgspec
import pytest
import torch

from glm_worker.engine.sampling.draw import draw
from glm_worker.engine.sampling.sampler import BROKEN, Sampled, Sampler
from glm_worker.kernels.cpu.sample import SampleKernel, sample_kernel
from glm_worker.messages import TokenLogprobs
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.sequence import SequenceState
from unit.worker.sampling.answers import (
    END_THINK,
    EOS,
    STOPS,
    THINK,
    VOCAB_SIZE,
    a_matcher,
    a_request,
    a_sequence,
    a_thought,
    ids_of,
    text_of,
)

A, B, C = (ids_of(char)[0] for char in "abc")
WARM = SamplingParams(temperature=1.5, seed=3)

# One request of each kind, and one of all kinds at once
REQUESTS: dict[str, EngineRequest] = {
    "plain": a_request("plain"),
    "drawn": a_request("drawn", sampling=WARM),
    "filtered": a_request("filtered", sampling=SamplingParams(temperature=1.2, top_p=0.7, seed=5)),
    "penalties": a_request(
        "penalties",
        sampling=SamplingParams(
            temperature=0.9, seed=1, frequency_penalty=0.7, presence_penalty=0.5, repetition_penalty=1.4
        ),
    ),
    "bias": a_request("bias", sampling=SamplingParams(temperature=1.0, seed=2, logit_bias={B: 6.0, C: -100.0})),
    "bad words": a_request("bad words", sampling=WARM, bad_words=[[A], [B, C]]),
    "min_tokens": a_request("min_tokens", min_tokens=12),
    "logprobs": a_request("logprobs", sampling=WARM, num_logprobs=5),
    "thought": a_request("thought", sampling=WARM, thought=a_thought(3), num_logprobs=0),
    "grammar": a_request("grammar", sampling=WARM, has_grammar=True),
    "all": a_request(
        "all",
        sampling=SamplingParams(
            temperature=1.3, top_p=0.9, seed=9, frequency_penalty=0.2, repetition_penalty=1.1, logit_bias={A: 1.0}
        ),
        bad_words=[[A, A]],
        min_tokens=6,
        num_logprobs=3,
        thought=a_thought(4),
        has_grammar=True,
        close_id=END_THINK,
    ),
}
REGEX = "(a|b|c|[0-9]){1,30}"
NUM_TOKENS = 25


def a_sampler(*requests: EngineRequest, regex: str = REGEX, kernel: SampleKernel | None = None) -> Sampler:
    sampler = Sampler(kernel)
    for request in requests:
        if request.grammar is not None:
            matcher = a_matcher(request, regex)
            matcher.take_all(request.answer_token_ids)
            sampler.expect(request.request_id, matcher)
    return sampler


def logits_of(sequences: Sequence[SequenceState]) -> torch.Tensor:
    """The model: what it says depends on the request and the position; it likes some letters, and to stop."""
    rows = []
    for sequence in sequences:
        seed = sum(sequence.request_id.encode()) * 1000 + sequence.num_tokens
        row = 2 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
        row[[A, B, C]] += 7.0
        row[EOS] += 5.0
        row[STOPS[1:]] -= 30.0
        rows.append(row)
    return torch.stack(rows)


def answers_of(requests: Sequence[EngineRequest], num_tokens: int = NUM_TOKENS) -> dict[str, list[int]]:
    """Sample all requests together, each until it ends."""
    sampler = a_sampler(*requests)
    sequences = [a_sequence(request) for request in requests]
    for _ in range(num_tokens):
        running = [sequence for sequence in sequences if sequence.finish_reason is None]
        if running:
            step(sampler, running)
    return {sequence.request_id: sequence.token_ids[3:] for sequence in sequences}


def step(sampler: Sampler, sequences: Sequence[SequenceState]) -> Sampled:
    sampled = sampler.sample(logits_of(sequences), sequences)
    assert not sampled.failed
    for sequence, token_id in zip(sequences, sampled.token_ids, strict=True):
        sequence.append(token_id)
    return sampled


@pytest.fixture(scope="module")
def alone() -> dict[str, list[int]]:
    return {name: answers_of([request])[name] for name, request in REQUESTS.items()}


def test_each_request_gets_in_a_batch_what_it_gets_alone_in_any_order(alone: dict[str, list[int]]) -> None:
    requests = list(REQUESTS.values())
    assert answers_of(requests) == answers_of(requests[::-1]) == alone


@pytest.mark.parametrize("name", REQUESTS)
def test_at_every_point_a_new_sampler_goes_on_as_the_old_one_would(name: str, alone: dict[str, list[int]]) -> None:
    """So nothing is kept that the tokens do not say."""
    request, answer = REQUESTS[name], alone[name]
    for n in range(len(answer)):
        sequence = a_sequence(request, answer[:n])
        assert a_sampler(request).sample(logits_of([sequence]), [sequence]).token_ids == [answer[n]]


@pytest.mark.parametrize("name", REQUESTS)
def test_from_every_point_a_resumed_request_goes_on_as_the_first_would(name: str, alone: dict[str, list[int]]) -> None:
    """Forced tokens of a thought, masks, counts, positions and logprobs among it."""
    request, answer = REQUESTS[name], alone[name]
    first = logprobs_of(request, [])
    for n in range(len(answer)):
        resumed = msgspec.structs.replace(request, answer_token_ids=answer[:n])
        assert answers_of([resumed], NUM_TOKENS - n)[name] == answer
        assert logprobs_of(request, answer[:n]) == first[n:]


def logprobs_of(request: EngineRequest, answer: list[int]) -> list[TokenLogprobs]:
    """The logprobs of what comes after answer, if the request asks for any."""
    request = msgspec.structs.replace(request, answer_token_ids=answer)
    sampler, sequence, found = a_sampler(request), a_sequence(request), []
    while sequence.finish_reason is None and sequence.num_generated < NUM_TOKENS:
        found.append(step(sampler, [sequence]).logprobs.get(0))
    assert all((logprobs is None) == (request.num_logprobs is None) for logprobs in found)
    return [logprobs for logprobs in found if logprobs is not None]


def test_an_answer_so_far_that_does_not_count_changes_the_answer(alone: dict[str, list[int]]) -> None:
    """Or the test above would compare what does nothing: in the prompt the same tokens mean something else."""
    for name in ("penalties", "thought"):
        request, begun = REQUESTS[name], alone[name][:2]
        prompt = [*request.prompt_token_ids, *begun]
        assert answers_of([msgspec.structs.replace(request, prompt_token_ids=prompt)])[name][2:] != alone[name][2:]


def test_every_kind_of_request_changes_the_answer(alone: dict[str, list[int]]) -> None:
    """Or the tests above would compare what does nothing."""
    for name in set(REQUESTS) - {"plain", "drawn", "filtered", "logprobs"}:
        bare = msgspec.structs.replace(
            REQUESTS[name],
            sampling=SamplingParams(temperature=REQUESTS[name].sampling.temperature, seed=REQUESTS[name].sampling.seed),
            min_tokens=0,
            bad_words=[],
            thought=None,
            grammar=None,
        )
        assert answers_of([bare])[name] != alone[name], name


def test_answers_keep_what_their_requests_ask_for(alone: dict[str, list[int]]) -> None:
    assert A not in alone["bad words"]
    assert all(pair != (B, C) for pair in zip(alone["bad words"], alone["bad words"][1:], strict=False))
    assert not set(alone["min_tokens"][:12]) & set(STOPS)
    assert C not in alone["bias"]
    thought = alone["thought"][: alone["thought"].index(END_THINK) + 1]
    assert len(thought) <= 5
    whole = alone["all"][alone["all"].index(END_THINK) + 1 :]
    assert whole
    assert set(text_of([i for i in whole if i not in STOPS])) <= set("abc0123456789")
    assert set(text_of(alone["grammar"][:-1])) <= set("abc0123456789")


def test_a_plain_batch_is_drawn_from_the_logits_as_they_are() -> None:
    sequences = [a_sequence(REQUESTS[name]) for name in ("plain", "drawn", "filtered")]
    logits_SV = logits_of(sequences)
    before_SV = logits_SV.clone()
    params = [sequence.request.sampling for sequence in sequences]
    sampled = Sampler().sample(logits_SV, sequences)
    assert sampled == Sampled(draw(before_SV, params, [3, 3, 3]).token_ids)
    assert logits_SV.equal(before_SV)


def test_logprobs_are_of_the_raw_logits_and_of_the_token_that_was_taken() -> None:
    sampling = SamplingParams(temperature=0, logit_bias={B: 90.0}, frequency_penalty=2, repetition_penalty=1.5)
    sequence = a_sequence(a_request(sampling=sampling, bad_words=[[A]], num_logprobs=3), [A, B, C])
    logits_SV = logits_of([sequence])
    exact_V = logits_SV[0].double().log_softmax(dim=0)
    sampled = Sampler().sample(logits_SV, [sequence])
    assert sampled.token_ids == [B]
    logprobs = sampled.logprobs[0]
    assert logprobs.logprob == pytest.approx(exact_V[B].item(), abs=1e-5)
    assert [id_ for id_, _ in logprobs.top] == exact_V.topk(3).indices.tolist()


def test_a_forced_token_gets_the_logprob_that_the_model_gave_it() -> None:
    sequence = a_sequence(a_request(thought=a_thought(0), num_logprobs=0))
    logits_SV = logits_of([sequence])
    exact = logits_SV[0].log_softmax(dim=0)[10].item()
    sampled = Sampler().sample(logits_SV, [sequence])
    assert sampled.token_ids == [10]
    assert sampled.logprobs[0].logprob == pytest.approx(exact, abs=1e-5)
    assert sampled.logprobs[0].rank > 1


def test_penalties_come_before_the_bias_and_both_before_the_draw() -> None:
    """5 - 1 x 2 counts + 0.5 is less than 4; before the penalty, 5 / 2 would not be divided after the bias."""
    logits_SV = torch.full((1, VOCAB_SIZE), -50.0)
    logits_SV[0, [A, B]] = torch.tensor([5.0, 4.0])
    sampling = SamplingParams(temperature=0, repetition_penalty=2.0, logit_bias={A: 1.4})
    sequence = a_sequence(a_request(sampling=sampling), [A])
    assert Sampler().sample(logits_SV, [sequence]).token_ids == [B]  # 5 / 2 + 1.4 = 3.9; (5 + 1.4) / 2 would be 3.2
    logits_SV[0, [A, B]] = torch.tensor([5.0, 3.5])
    assert Sampler().sample(logits_SV, [sequence]).token_ids == [A]


def test_a_bias_never_lifts_a_banned_token_or_one_that_the_grammar_leaves_out() -> None:
    sampling = SamplingParams(temperature=0, logit_bias={A: 100.0})
    banned = a_sequence(a_request("banned", sampling=sampling, bad_words=[[A]]))
    outside = a_request("outside", sampling=sampling, has_grammar=True)
    sampler, sequences = a_sampler(outside, regex="[bc]"), [banned, a_sequence(outside)]
    first, second = sampler.sample(logits_of(sequences), sequences).token_ids
    assert first != A
    assert second in (B, C)


def test_min_tokens_yields_to_a_grammar_that_is_complete() -> None:
    request = a_request(min_tokens=5, has_grammar=True)
    sampler, sequence = a_sampler(request, regex="ab"), a_sequence(request)
    for _ in range(3):
        step(sampler, [sequence])
    assert list(sequence.token_ids[3:5]) == [A, B]
    assert (sequence.token_ids[5] in STOPS, sequence.finish_reason) == (True, "stop")


def test_a_request_for_a_whole_answer_does_not_end_in_its_thought() -> None:
    sampling = SamplingParams(temperature=0, logit_bias={EOS: 50.0})
    bare = a_sequence(a_request("bare", sampling=sampling))
    request = a_request("whole", sampling=sampling, has_grammar=True, close_id=END_THINK)
    sampler, sequence = a_sampler(request, regex="ab"), a_sequence(request, [THINK])
    sequences = [bare, sequence]
    first, second = sampler.sample(logits_of(sequences), sequences).token_ids
    assert first == EOS
    assert second not in STOPS


def test_bans_of_the_whole_vocabulary_are_no_bans() -> None:
    sequence = a_sequence(a_request(bad_words=[[i] for i in range(VOCAB_SIZE)]))
    best = int(logits_of([sequence]).argmax())
    assert Sampler().sample(logits_of([sequence]), [sequence]).token_ids == [best]


def test_an_answer_that_no_stop_token_can_end_is_over_when_its_grammar_is() -> None:
    request = a_request(has_grammar=True, stop_token_ids=[])
    sampler, sequence = a_sampler(request, regex="ab"), a_sequence(request)
    assert step(sampler, [sequence]).is_over == set()
    assert step(sampler, [sequence]).is_over == {0}
    assert list(sequence.token_ids[3:]) == [A, B]


def test_a_grammar_that_cannot_go_on_fails_its_request_and_no_other() -> None:
    stray, other = a_request("stray", has_grammar=True), REQUESTS["bias"]
    sampler = a_sampler(stray)
    sequences = [a_sequence(stray, [A, END_THINK]), a_sequence(other)]
    expected = Sampler().sample(logits_of(sequences[1:]), sequences[1:]).token_ids
    sampled = sampler.sample(logits_of(sequences), sequences)
    assert sampled.failed == {0: "the answer left the grammar of this request"}
    assert sampled.token_ids[1:] == expected


def test_an_id_may_be_used_again_when_it_was_forgotten() -> None:
    sampler = Sampler()
    first = a_sequence(a_request("a", bad_words=[[A]]))
    assert sampler.sample(logits_of([first]), [first]).token_ids != [A]
    sampler.forget("a")
    sampler.forget("nobody")
    second = a_sequence(a_request("a", sampling=SamplingParams(temperature=0, logit_bias={A: 50.0})))
    assert sampler.sample(logits_of([second]), [second]).token_ids == [A]


@pytest.mark.parametrize("way", ["torch", "C"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_broken_row_fails_its_request_and_no_other(name: str, broken: float, way: str) -> None:
    """Beside a request of every kind, its own included."""
    kernel = sample_kernel(1) if way == "C" else None
    requests = [msgspec.structs.replace(REQUESTS[name], request_id="broken"), *REQUESTS.values()]
    expected = a_sampler(*requests[1:], kernel=kernel).sample(*both(requests[1:]))
    logits_SV, sequences = both(requests)
    logits_SV[0] = broken
    sampled = a_sampler(*requests, kernel=kernel).sample(logits_SV, sequences)
    assert sampled.failed == {0: BROKEN}
    assert sampled.token_ids[1:] == expected.token_ids
    assert {row - 1: each for row, each in sampled.logprobs.items() if row} == expected.logprobs
    assert {row - 1 for row in sampled.is_over if row} == expected.is_over


def both(requests: Sequence[EngineRequest]) -> tuple[torch.Tensor, list[SequenceState]]:
    sequences = [a_sequence(request) for request in requests]
    return logits_of(sequences), sequences


def test_logits_of_an_inference_are_changed_in_place() -> None:
    sequence = a_sequence(REQUESTS["bias"])
    with torch.inference_mode():
        logits_SV = logits_of([sequence])
    assert Sampler().sample(logits_SV, [sequence]).token_ids
