"""Sampling in C against the draw in torch, over shapes; what it must draw at all is in sampling/test_draw.py."""

import math
from collections.abc import Iterator

import msgspec
import pytest
import torch

from glm_worker.engine.sampling.draw import draw
from glm_worker.kernels.cpu.library import Team, available_isas, load
from glm_worker.kernels.cpu.sample import SampleKernel
from glm_worker.request import SamplingParams
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

TEAMS = {num_threads: Team(num_threads) for num_threads in (1, 2, 3, 4)}
KINDS = (
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7),
    SamplingParams(top_p=0.9),
    SamplingParams(top_k=1),
    SamplingParams(top_k=40, top_p=0.7),
    SamplingParams(min_p=0.02, temperature=1.3),
    SamplingParams(min_p=0.01, top_k=3000, top_p=0.99),
)
VOCABULARIES = (1, 2, 15, 16, 17, 255, 256, 257, 4000, 32_003)


@pytest.fixture(scope="module", autouse=True)
def _close_teams() -> Iterator[None]:
    yield
    for team in TEAMS.values():
        team.close()


def some_logits(num_rows: int, vocab_size: int, *, is_peaked: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab_size)
    logits_SV = 2 * torch.randn(num_rows, vocab_size, generator=generator)
    if is_peaked:
        logits_SV[:, : min(20, vocab_size)] += 10
    return logits_SV


def some_params(num_rows: int) -> list[SamplingParams]:
    return [msgspec.structs.replace(KINDS[row % len(KINDS)], seed=row) for row in range(num_rows)]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("is_peaked", [False, True])
def test_a_row_gets_the_token_that_torch_draws(isa: str, vocab_size: int, is_peaked: bool) -> None:
    """They sum in other orders, so a random number that falls right between two tokens may take either."""
    params, logits_SV = some_params(70), some_logits(70, vocab_size, is_peaked=is_peaked)
    expected = draw(logits_SV, params, range(70)).token_ids
    found = draw(logits_SV, params, range(70), SampleKernel(load(isa), TEAMS[2])).token_ids
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= (0 if vocab_size < 1000 else 1)


@pytest.mark.parametrize("isa", available_isas())
def test_a_token_depends_on_its_row_alone(isa: str) -> None:
    params, logits_SV = some_params(65), some_logits(65, 5001, is_peaked=True)
    logits_SV[64] = math.nan
    expected = draw(logits_SV, params, range(65), SampleKernel(load(isa), TEAMS[1]))
    for team in TEAMS.values():
        kernel = SampleKernel(load(isa), team)
        assert draw(logits_SV, params, range(65), kernel) == expected
        for begin in (0, 1, 7, 40):
            rows = range(begin, min(begin + 20, 64))
            some = draw(logits_SV[begin : rows.stop], params[begin : rows.stop], rows, kernel)
            assert some.token_ids == expected.token_ids[begin : rows.stop]


def test_rows_may_lie_apart() -> None:
    """As where logits of all ranks are joined, and padding is cut off."""
    params, wide_SV = some_params(12), some_logits(12, 1000, is_peaked=False)
    kernel = SampleKernel(load(), TEAMS[2])
    assert draw(wide_SV[:, :777], params, range(12), kernel) == draw(
        wide_SV[:, :777].contiguous(), params, range(12), kernel
    )


def test_no_rows_are_no_work() -> None:
    kernel = SampleKernel(load(), TEAMS[2])
    assert kernel.draw(torch.empty(0, 10), torch.empty(0, 5).numpy()).tolist() == []
