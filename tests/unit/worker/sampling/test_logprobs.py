"""Logprobs against log_softmax in fp64."""

import math

import pytest
import torch

from glm_worker.engine.sampling.logprobs import Logprobs

VOCAB_SIZE = 500


def random_logits(num_rows: int) -> torch.Tensor:
    return 3 * torch.randn(num_rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_logprob_rank_and_best_are_those_of_the_distribution(num_top: int) -> None:
    logits_SV = random_logits(6)
    rows, tokens = [4, 1, 5], [7, 499, int(logits_SV[5].argmax())]
    by_row = dict(zip(rows, tokens, strict=True))
    logprobs = Logprobs(logits_SV, dict.fromkeys(rows, num_top), {1}).of([by_row.get(row, 0) for row in range(6)])
    assert list(logprobs) == rows
    for row, token in by_row.items():
        found = logprobs[row]
        exact_V = logits_SV[row].double().log_softmax(dim=0)
        assert found.logprob == pytest.approx(exact_V[token].item(), abs=1e-5)
        assert found.rank == 1 + int((exact_V > exact_V[token]).sum())
        best = exact_V.sort(descending=True)
        assert [id_ for id_, _ in found.top] == best.indices[:num_top].tolist()
        assert [value for _, value in found.top] == pytest.approx(best.values[:num_top].tolist(), abs=1e-5)


def test_each_row_gets_as_many_as_it_asks_for() -> None:
    found = Logprobs(random_logits(3), {0: 0, 1: 3, 2: 20}, ()).of([1, 1, 1])
    assert [len(logprobs.top) for logprobs in found.values()] == [0, 3, 20]


def test_they_are_of_the_logits_as_they_were_when_taken() -> None:
    logits_SV = random_logits(1)
    logprobs = Logprobs(logits_SV, {0: 0}, {0})
    expected = logits_SV[0].log_softmax(dim=0)[3].item()
    logits_SV[0, 3] = -math.inf
    assert logprobs.of([3])[0].logprob == pytest.approx(expected, abs=1e-5)


def test_of_equal_tokens_the_lower_ids_are_the_better_ones() -> None:
    logits_SV = torch.zeros(2, VOCAB_SIZE)
    logits_SV[0, [3, 9]] = 1.0
    first, second = Logprobs(logits_SV, {0: 4, 1: 2}, ()).of([0, 5]).values()
    assert [id_ for id_, _ in first.top] == [3, 9, 0, 1]
    assert [id_ for id_, _ in second.top] == [0, 1]
    assert (first.rank, second.rank) == (3, 1)


def test_a_vocabulary_smaller_than_what_is_asked_for_is_told_whole() -> None:
    assert len(Logprobs(torch.zeros(1, 3), {0: 20}, ()).of([0])[0].top) == 3
