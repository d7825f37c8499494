"""The grouped kernel against its plain twin."""

import pytest
import torch

from glm_worker.kernels.grouped_experts import grouped_experts, grouped_experts_plain
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()


@pytest.mark.parametrize(
    "counts",
    [[0], [1], [3, 0, 0, 4], [0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 9], [33, 1, 0, 64]],
    ids=str,
)
@pytest.mark.parametrize("num_foreign", [0, 5])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)],  # sums of 64 products of order 1: a few roundings of the type
    ids=["float32", "bfloat16"],
)
def test_grouped_experts_equal_a_loop_over_experts(
    counts: list[int], num_foreign: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, width = 64, 24
    x_RD = torch.randn(sum(counts) + num_foreign, hidden, generator=generator).to(dtype)
    gate_up = (torch.randn(len(counts), 2 * width, hidden, generator=generator) / 8).to(dtype)
    down = (torch.randn(len(counts), hidden, width, generator=generator) / 5).to(dtype)
    ends_L = torch.tensor(counts).cumsum(0).to(torch.int32)
    found, expected = (f(x_RD, ends_L, gate_up, down)[: sum(counts)] for f in (grouped_experts, grouped_experts_plain))
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
