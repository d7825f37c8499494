"""Penalties against the definition, a token at a time."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.engine.sampling.penalties import Penalised, TokenCounts, counts_for, has_penalty, penalise
from glm_worker.request import SamplingParams

VOCAB_SIZE = 40

params_of_all_kinds = st.builds(
    SamplingParams,
    frequency_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    presence_penalty=st.sampled_from([0.0, 1.5, -0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    unpenalised_ids=st.sampled_from([[], [0], [3, 17, 39]]),
)
texts = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=100)


def counts_of(params: SamplingParams, prompt: list[int], answer: list[int]) -> TokenCounts:
    counts = counts_for(params, prompt)
    for token_id in answer:
        counts.add(token_id)
    return counts


def plainly(logits: list[float], params: SamplingParams, prompt: list[int], answer: list[int]) -> list[float]:
    counted, found = Counter(answer), []
    for token_id, logit in enumerate(logits):
        value = logit
        if token_id in params.unpenalised_ids:
            found.append(value)
            continue
        if token_id in counted or token_id in prompt:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        value -= params.frequency_penalty * counted[token_id]
        value -= params.presence_penalty if token_id in counted else 0
        found.append(value)
    return found


@given(st.lists(st.tuples(params_of_all_kinds, texts, texts), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_rows_get_what_the_definition_says(asked: list[tuple[SamplingParams, list[int], list[int]]]) -> None:
    logits_SV = torch.randn(2 * len(asked), VOCAB_SIZE, generator=torch.Generator().manual_seed(len(asked)))
    expected_SV = logits_SV.clone()
    rows = []
    for number, (params, prompt, answer) in enumerate(asked):
        row = 2 * number + 1  # the rows between them ask for nothing
        expected_SV[row] = torch.tensor(plainly(logits_SV[row].tolist(), params, prompt, answer))
        rows.append(Penalised(row, params, counts_of(params, prompt, answer)))
    penalise(logits_SV, rows)
    torch.testing.assert_close(logits_SV, expected_SV, rtol=1e-6, atol=1e-6)


def test_many_tokens_are_counted_as_few_are() -> None:
    answer = [i * i % 997 for i in range(5000)]
    counts = counts_of(SamplingParams(), [], answer)
    assert dict(zip(counts.ids.tolist(), counts.counts.tolist(), strict=True)) == Counter(answer)


def test_only_the_repetition_penalty_asks_for_the_prompt() -> None:
    assert len(counts_for(SamplingParams(frequency_penalty=1, presence_penalty=1), [1, 2]).ids) == 0
    assert counts_for(SamplingParams(repetition_penalty=1.1), [2, 1, 2]).ids.tolist() == [1, 2]


@pytest.mark.parametrize("repetition_penalty", [5e-324, 1e-30, 1e300])
def test_no_penalty_makes_a_logit_infinite(repetition_penalty: float) -> None:
    logits_SV = torch.tensor([[3.0, -3.0, 0.0, 1.0]])
    params = SamplingParams(repetition_penalty=repetition_penalty, frequency_penalty=3e38, presence_penalty=3e38)
    penalise(logits_SV, [Penalised(0, params, counts_of(params, [0, 1], [0, 1, 2]))])
    assert all(math.isfinite(value) for value in logits_SV[0].tolist())


@pytest.mark.parametrize(
    ("params", "has_one"),
    [
        (SamplingParams(), False),
        (SamplingParams(frequency_penalty=-0.1), True),
        (SamplingParams(presence_penalty=0.1), True),
        (SamplingParams(repetition_penalty=1.1), True),
    ],
)
def test_a_request_without_penalties_has_none(params: SamplingParams, has_one: bool) -> None:
    assert has_penalty(params) == has_one
