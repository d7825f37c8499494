"""How clearly a router chooses, in terms of the errors of its input."""

import pytest
import torch
from torch import Tensor

from glm_worker.check.oracle import routing_of

NO_BIAS = torch.zeros(16)


def some_input() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(4000, 64, generator=generator), torch.randn(16, 64, generator=generator) / 8


def chosen(x_TD: Tensor, weight_ED: Tensor, bias_E: Tensor) -> Tensor:
    return ((x_TD @ weight_ED.T).sigmoid() + bias_E).topk(4).indices.sort().values


@pytest.mark.parametrize("bias_E", [NO_BIAS, torch.linspace(-0.2, 0.2, 16)], ids=["no bias", "a bias"])
@pytest.mark.parametrize("error", [1e-3, 1e-2])
def test_a_choice_that_leads_by_four_errors_stands(error: float, bias_E: Tensor) -> None:
    x_TD, weight_ED = some_input()
    ids_TK = chosen(x_TD, weight_ED, bias_E)
    lead_T = routing_of(x_TD, weight_ED, bias_E, ids_TK).lead_T
    off_TD = x_TD * (1 + error * torch.randn(x_TD.shape, generator=torch.Generator().manual_seed(6)))
    is_other_T = (chosen(off_TD, weight_ED, bias_E) != ids_TK).any(dim=-1)
    assert is_other_T.any(), "or no choice was near"
    assert not is_other_T[lead_T > 4 * error].any()
    assert (lead_T > 4 * error).float().mean() > 0.5


def test_experts_of_one_score_lead_by_nothing() -> None:
    x_TD, weight_ED = some_input()
    routing = routing_of(x_TD, weight_ED[:1].repeat(16, 1), NO_BIAS, torch.tensor([[0, 1, 2, 3]]).repeat(4000, 1))
    assert routing.lead_T.abs().max() == 0


def test_nothing_is_near_where_all_experts_are_chosen() -> None:
    x_TD, weight_ED = some_input()
    routing = routing_of(x_TD, weight_ED, NO_BIAS, torch.arange(16).repeat(4000, 1))
    assert routing.lead_T.isinf().all()
