"""Compare the logits of GlmMoe with those of the oracle, on one rank or many.

Tolerance of a logit in fp32: 1e-5 for logits up to 5, and 16 units of rounding (1.2e-7) of the largest logit beyond.
Sums in another order (ranks that add up their parts, products of few rows, for which the math library has other
kernels) move a trained model's logits by 1e-6 of the largest one: the oracle itself is that far from its own result in
fp64. A wrong formula moves them by 1e-4 and more: test_parity.py shows it.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from glm_worker.kernels.cpu import library
from glm_worker.model.config import ModelConfig
from glm_worker.model.weights import load_model
from integration.rank_pool import Rank
from integration.teacher_forcing import Step, teacher_forced_logits

CLEAR = 2e-5
PROMPT_LENS = (1, 2, 17, 64, 300, 129)


class Case(NamedTuple):
    folder: Path
    prompts: list[Tensor]
    expected: list[Tensor]


def some_prompts(vocab_size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocab_size, (n,), generator=generator) for n in PROMPT_LENS]


def tolerance(expected: Tensor) -> float:
    """Return how far a logit may be from the expected one; the reason is at the top of the file."""
    return max(1e-5, 16 * torch.finfo(torch.float32).eps * expected.abs().max().item())


def relative_errors(logits: Tensor, expected: Tensor) -> Tensor:
    """Return how far the logits of each token are from the expected ones, relative to their size. (T, V) -> (T,)."""
    return (logits - expected).norm(dim=-1) / expected.norm(dim=-1)


class Outcome(NamedTuple):
    """What a rank found when it compared its logits with the oracle's."""

    largest_difference: float
    tolerance: float
    wrong_greedy_tokens: int
    typical_error: float  # four tokens of five are closer than this, relative to the size of their logits
    digest: str  # of the logits, to the bit


def compare(
    steps: list[Step],
    case: Case,
    rank: Rank,
    dtype: torch.dtype = torch.float32,
    *,
    fixed_order: bool = False,
    kernel_threads: int = 0,
    isa: str = "",
) -> Outcome:
    """Run on a rank: load its part of the model, feed the prompts in these steps, compare.

    kernel_threads: of the kernels in C; 0: torch computes. isa: of the kernels; without, the best that the CPU has.
    """
    os.environ[library.VARIABLE] = isa
    config = ModelConfig.read(case.folder)
    model = load_model(case.folder, config, rank.mesh, rank.comm, rank.device, dtype, fixed_order=fixed_order)
    if kernel_threads:
        model.use_kernels(kernel_threads)
        wanted = isa or library.available_isas()[-1]
        assert model.kernels == f"cpu-{wanted}", "the library is there, or this would compare torch with itself"
    logits = torch.cat(teacher_forced_logits(model, rank.mesh, case.prompts, steps))
    expected = torch.cat(case.expected)
    allowed, best_two = tolerance(expected), expected.topk(2).values
    is_clear = best_two[:, 0] - best_two[:, 1] > CLEAR  # where they are closer, either may come out first
    return Outcome(
        largest_difference=(logits - expected).abs().max().item(),
        tolerance=allowed,
        wrong_greedy_tokens=int((is_clear & (logits.argmax(-1) != expected.argmax(-1))).sum()),
        typical_error=relative_errors(logits, expected).quantile(0.8).item(),
        digest=hashlib.sha256(logits.numpy().tobytes()).hexdigest(),
    )


def assert_parity(outcomes: list[Outcome], what: str) -> None:
    """Raise unless every rank found parity with the oracle, and all the same bits."""
    largest = max(outcome.largest_difference for outcome in outcomes)
    assert largest <= outcomes[0].tolerance, f"{what}: a logit differs by {largest:.1e}"
    assert sum(outcome.wrong_greedy_tokens for outcome in outcomes) == 0, what
    assert len({outcome.digest for outcome in outcomes}) == 1, f"{what}: ranks disagree on the logits"
