"""Matrix products in C against torch's, and their promise: the bits of a row are those of the row alone."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_worker.kernels.cpu.library import Team, available_isas, load
from glm_worker.kernels.cpu.linear import linear
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

TEAMS = {num_threads: Team(num_threads) for num_threads in (1, 2, 3, 4)}
ROWS = (0, 1, 2, 3, 4, 5, 7, 33, 65, 130)
SHAPES = ((1, 1), (5, 8), (17, 31), (96, 64), (130, 100), (7, 777))  # N, K


@pytest.fixture(scope="module", autouse=True)
def _close_teams() -> Iterator[None]:
    yield
    for team in TEAMS.values():
        team.close()


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_product_equals_that_of_torch(n: int, k: int, dtype: torch.dtype, isa: str) -> None:
    """The tolerance is that of sums of k products in another order; rounded rows of x are given to both."""
    library, w_NK, bias_N = load(isa), some(n, k, seed=1, dtype=dtype), some(n, seed=2)
    is_rounded = dtype == torch.bfloat16 and library.has_bf16_products
    for m in ROWS:
        x_MK = some(m, k, seed=3)
        y_MN = linear(library, TEAMS[m % 4 + 1], x_MK, w_NK, bias_N)
        seen_MK = x_MK.bfloat16().double() if is_rounded else x_MK.double()
        expected_MN = F.linear(seen_MK, w_NK.double(), bias_N.double())
        torch.testing.assert_close(y_MN.double(), expected_MN, atol=2e-6 * k**0.5 + 1e-6, rtol=2e-6)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_bits_of_a_row_depend_on_nobody_beside_it_nor_on_threads(dtype: torch.dtype, isa: str) -> None:
    library, x_MK, w_NK = load(isa), some(150, 133, seed=4), some(101, 133, seed=5, dtype=dtype)
    whole_MN = linear(library, TEAMS[1], x_MK, w_NK)
    for num_rows in (1, 2, 3, 6, 61, 149):
        for num_threads, team in TEAMS.items():
            part_MN = linear(library, team, x_MK[-num_rows:], w_NK)
            assert torch.equal(part_MN, whole_MN[-num_rows:]), (num_rows, num_threads)


def test_bits_of_a_column_depend_on_no_other_weights() -> None:
    x_MK, w_NK = some(9, 64, seed=6), some(50, 64, seed=7)
    whole_MN = linear(load(), TEAMS[1], x_MK, w_NK)
    for start in range(0, 50, 7):
        assert torch.equal(linear(load(), TEAMS[2], x_MK, w_NK[start : start + 5]), whole_MN[:, start : start + 5])


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_bits_do_not_depend_on_how_many_chunks_a_matrix_has(dtype: torch.dtype, isa: str) -> None:
    """Of one thread a chunk ends at so many bytes of weights: this matrix has several, and its parts have one."""
    library, x_MK, w_NK = load(isa), some(5, 500, seed=14), some(1100, 500, seed=15, dtype=dtype)
    whole_MN = linear(library, TEAMS[1], x_MK, w_NK)
    for start in (0, 100, 1000):
        part_MN = linear(library, TEAMS[1], x_MK, w_NK[start : start + 100])
        assert torch.equal(part_MN, whole_MN[:, start : start + 100])


def test_chosen_rows_are_computed_in_the_order_asked_for() -> None:
    x_MK, w_NK, rows = some(20, 48, seed=8), some(30, 48, seed=9), torch.tensor([19, 0, 0, 7])
    assert torch.equal(linear(load(), TEAMS[3], x_MK, w_NK, rows=rows), linear(load(), TEAMS[1], x_MK[rows], w_NK))


def test_rows_that_lie_apart_are_read_where_they_are() -> None:
    wide = some(12, 100, seed=10)
    w_NK = some(9, 40, seed=11)
    apart = wide[:, 30:70]
    assert torch.equal(linear(load(), TEAMS[1], apart, w_NK), linear(load(), TEAMS[1], apart.contiguous(), w_NK))


@pytest.mark.parametrize("isa", available_isas())
def test_a_row_that_is_not_finite_harms_no_other(isa: str) -> None:
    x_MK, w_NK = some(6, 70, seed=12), some(20, 70, seed=13)
    sound = linear(load(isa), TEAMS[2], x_MK, w_NK)
    x_MK[3, 69] = float("nan")
    found = linear(load(isa), TEAMS[2], x_MK, w_NK)
    assert found[3].isnan().all()
    kept = [0, 1, 2, 4, 5]
    assert torch.equal(found[kept], sound[kept])
