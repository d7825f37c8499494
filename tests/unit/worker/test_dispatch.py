"""Dispatch and combine: one rank and many give the same mixture, for any routing and any number of tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from glm_worker.parallel.dispatch import AllReduceDispatcher, LocalDispatcher, sort_by_expert
from glm_worker.parallel.groups import Communicator
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

NUM_EXPERTS, HIDDEN = 8, 16


def routing(num_tokens: int, num_chosen: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, expert ids (distinct per token) and weights."""
    generator = torch.Generator().manual_seed(seed)
    x_TD = torch.randn(num_tokens, HIDDEN, generator=generator)
    ids_TK = torch.rand(num_tokens, NUM_EXPERTS, generator=generator).argsort(-1)[:, :num_chosen]
    return x_TD, ids_TK, torch.rand(num_tokens, num_chosen, generator=generator)


def expert(index: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (index + 1) * x + index**2


def run(dispatcher: LocalDispatcher | AllReduceDispatcher, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Apply expert e as a function that tells it apart; rows of other ranks become NaN, as uncomputed memory may be."""
    dispatched = dispatcher.dispatch(x_TD, ids_TK, weights_TK)
    y_RD = torch.full_like(dispatched.x_RD, float("nan"))
    start = 0
    for index, end in zip(dispatcher.experts, dispatched.ends_L.tolist(), strict=True):
        y_RD[start:end] = expert(index)(dispatched.x_RD[start:end])
        start = end
    return dispatcher.combine(y_RD, dispatched)


def reference(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    out_TD = torch.zeros_like(x_TD)
    for token, (ids, weights) in enumerate(zip(ids_TK.tolist(), weights_TK.tolist(), strict=True)):
        for index, weight in zip(ids, weights, strict=True):
            out_TD[token] += weight * expert(index)(x_TD[token])
    return out_TD


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 64])
@pytest.mark.parametrize("num_chosen", [1, 3, NUM_EXPERTS])
def test_one_rank_mixes_what_the_experts_made(num_tokens: int, num_chosen: int) -> None:
    given = routing(num_tokens, num_chosen)
    torch.testing.assert_close(run(LocalDispatcher(range(NUM_EXPERTS)), *given), reference(*given))


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 64])
@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
def test_the_parts_of_the_ranks_add_up_to_the_mixture(num_tokens: int, num_ranks: int) -> None:
    """The communicator of a lone rank does not exchange, so each result is that rank's part."""
    given, share = routing(num_tokens, 3), NUM_EXPERTS // num_ranks
    shares = [range(first, first + share) for first in range(0, NUM_EXPERTS, share)]
    parts = [run(AllReduceDispatcher(experts, Communicator.single()), *given) for experts in shares]
    torch.testing.assert_close(torch.stack(parts).sum(0), reference(*given))


def test_a_rank_whose_experts_nobody_chose_contributes_zero_and_not_what_was_in_memory() -> None:
    x_TD, _, weights_TK = routing(5, 2)
    ids_TK = torch.tensor([[0, 1]]).expand(5, 2)
    assert torch.equal(
        run(AllReduceDispatcher(range(4, 8), Communicator.single()), x_TD, ids_TK, weights_TK), torch.zeros(5, HIDDEN)
    )


def test_shapes_do_not_depend_on_the_routing() -> None:
    x_TD, ids_TK, weights_TK = routing(6, 2)
    for ids in (ids_TK, torch.zeros_like(ids_TK), torch.full_like(ids_TK, 7)):
        dispatched = sort_by_expert(x_TD, ids, weights_TK, range(2, 4))
        assert dispatched.x_RD.shape == (12, HIDDEN)
        assert dispatched.ends_L.shape == (2,)
        assert dispatched.ends_L.dtype == torch.int32


def test_rows_are_sorted_by_expert_and_foreign_rows_come_last() -> None:
    x_TD = torch.arange(4.0)[:, None].expand(4, HIDDEN)
    ids_TK = torch.tensor([[5, 2], [2, 3], [0, 5], [3, 2]])
    dispatched = sort_by_expert(x_TD, ids_TK, torch.ones(4, 2), range(2, 4))
    assert dispatched.ends_L.tolist() == [3, 5]
    assert dispatched.x_RD[:5, 0].tolist() == [0, 1, 3, 1, 3]
    assert dispatched.is_foreign_R.tolist() == [False] * 5 + [True] * 3
