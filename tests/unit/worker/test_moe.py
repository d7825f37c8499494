"""The router's choice and weights, and the MoE layer as the definition states it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_worker.model.config import ModelConfig
from glm_worker.model.expert_load import ExpertLoad
from glm_worker.model.layers import MLP, Placement
from glm_worker.model.moe import Experts, MoE, Router
from glm_worker.parallel.dispatch import LocalDispatcher
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config

hold_torch_to_one_thread()

PLACE = Placement(torch.device("cpu"), torch.float32)


def a_router(**changes: object) -> Router:
    config = ModelConfig.model_validate(a_config(n_routed_experts=4, num_experts_per_tok=2, hidden_size=8, **changes))
    router = Router(config, PLACE)
    router.weight.copy_(torch.eye(4, 8))  # so the first four values of a token are its logits
    router.correction_bias.zero_()
    return router


def a_token(*logits: float) -> Tensor:
    return torch.tensor([[*logits, 0.0, 0.0, 0.0, 0.0]])


def chosen(router: Router, token: Tensor) -> dict[int, float]:
    weights, ids = router(token)
    return dict(zip(ids[0].tolist(), weights[0].tolist(), strict=True))


def test_weights_are_sigmoid_scores_that_add_up_to_the_scale() -> None:
    found = chosen(a_router(routed_scaling_factor=2.5), a_token(0.0, 1.0, 2.0, -1.0))
    scores = torch.tensor([1.0, 2.0]).sigmoid()
    expected = 2.5 * scores / scores.sum()
    assert found == pytest.approx({1: expected[0].item(), 2: expected[1].item()})


def test_weights_keep_their_size_where_the_model_does_not_normalise() -> None:
    found = chosen(a_router(norm_topk_prob=False), a_token(0.0, 1.0, 2.0, -1.0))
    assert found == pytest.approx({1: torch.tensor(1.0).sigmoid().item(), 2: torch.tensor(2.0).sigmoid().item()})


def test_the_correction_bias_changes_the_choice_and_not_the_weight() -> None:
    router = a_router(norm_topk_prob=False)
    router.correction_bias.copy_(torch.tensor([10.0, 0.0, 0.0, 0.0]))
    found = chosen(router, a_token(0.0, 1.0, 2.0, -1.0))
    assert found == pytest.approx({0: 0.5, 2: torch.tensor(2.0).sigmoid().item()})


def test_the_router_computes_in_fp32_whatever_the_model_computes_in() -> None:
    """Two logits that are one in bf16 still decide in the order that fp32 gives them."""
    router = a_router()
    router.weight.copy_(
        torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2**-12]]).repeat(2, 4) * torch.tensor([1, 1, -1, -1])[:, None]
    )
    weights, ids = router(torch.ones(1, 8, dtype=torch.bfloat16))
    assert weights.dtype == torch.float32
    assert weights[0, ids[0].tolist().index(1)] > weights[0, ids[0].tolist().index(0)]


@pytest.mark.parametrize("num_tokens", [0, 1, 7])
@pytest.mark.parametrize("num_shared", [1, 2])
def test_the_layer_is_the_weighted_sum_of_experts_and_the_shared_one(num_tokens: int, num_shared: int) -> None:
    config = ModelConfig.model_validate(a_config(n_shared_experts=num_shared))
    shared = MLP(config.hidden_size, config.moe_intermediate_size * num_shared, PLACE)
    moe = MoE(Router(config, PLACE), Experts(config, 8, PLACE), shared, LocalDispatcher(range(8)))
    generator = torch.Generator().manual_seed(0)
    for parameter in moe.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    x_TD = torch.randn(num_tokens, config.hidden_size, generator=generator)
    expected = torch.empty_like(x_TD)
    for token, x in enumerate(x_TD):
        expected[token] = mlp(x, shared.gate_up_proj.weight, shared.down_proj.weight)
        for index, weight in chosen(moe.router, x[None]).items():
            expected[token] += weight * mlp(x, moe.experts.gate_up_proj[index], moe.experts.down_proj[index])
    torch.testing.assert_close(moe(x_TD), expected, atol=1e-5, rtol=1e-5)


def mlp(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = (gate_up @ x).chunk(2)
    return down @ (F.silu(gate) * up)


def test_the_load_counts_every_choice_of_the_router_and_changes_no_bit() -> None:
    config = ModelConfig.model_validate(a_config())
    shared = MLP(config.hidden_size, config.moe_intermediate_size, PLACE)
    parts = Router(config, PLACE), Experts(config, 8, PLACE), shared, LocalDispatcher(range(8))
    load = ExpertLoad(8, PLACE.device)
    plain, counting = MoE(*parts), MoE(*parts, load)
    generator = torch.Generator().manual_seed(0)
    for parameter in plain.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    expected = torch.zeros(8, dtype=torch.int64)
    for num_tokens in (0, 1, 7):
        x_TD = torch.randn(num_tokens, config.hidden_size, generator=generator)
        assert torch.equal(counting(x_TD), plain(x_TD))
        counting(x_TD)  # a second layer of the same step
        load.count(num_tokens)
        expected += 2 * torch.bincount(plain.router(x_TD)[1].flatten(), minlength=8)
    assert load.take() == expected.tolist()
    assert load.take() == [0] * 8
