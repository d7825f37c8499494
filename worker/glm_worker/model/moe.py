"""Sparse MoE feed-forward, expert-parallel.

Shape suffixes: T tokens on this rank, D hidden size, K experts per token, E experts of the model, L experts on this
rank, R copies of tokens, I width of an expert.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_worker.kernels.fixed_order import fixed_sigmoid
from glm_worker.kernels.grouped_experts import grouped_experts
from glm_worker.model.config import ModelConfig
from glm_worker.model.expert_load import ExpertLoad
from glm_worker.model.layers import MLP, Placement
from glm_worker.parallel.dispatch import Dispatcher


class Router(nn.Module):
    """Choose each token's experts: sigmoid scores in fp32; the correction bias takes part in the choice only."""

    def __init__(self, config: ModelConfig, place: Placement) -> None:
        super().__init__()
        self.weight = place.empty(config.n_routed_experts, config.hidden_size, dtype=torch.float32)
        self.correction_bias = place.empty(config.n_routed_experts, dtype=torch.float32)
        self.num_chosen = config.num_experts_per_tok
        self.is_normalized = config.norm_topk_prob
        self.scale = config.routed_scaling_factor
        self.fixed_order = place.fixed_order

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (T, K) in fp32 and expert ids (T, K)."""
        logits_TE = F.linear(x_TD.float(), self.weight)
        scores_TE = fixed_sigmoid(logits_TE) if self.fixed_order else logits_TE.sigmoid()
        expert_ids_TK = torch.topk(scores_TE + self.correction_bias, self.num_chosen, dim=-1, sorted=False).indices
        weights_TK = scores_TE.gather(1, expert_ids_TK)
        if self.is_normalized:
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return weights_TK * self.scale, expert_ids_TK


class Experts(nn.Module):
    """The routed experts of this rank."""

    def __init__(self, config: ModelConfig, num_local: int, place: Placement) -> None:
        super().__init__()
        self.gate_up_proj = place.empty(num_local, 2 * config.moe_intermediate_size, config.hidden_size)
        self.down_proj = place.empty(num_local, config.hidden_size, config.moe_intermediate_size)

    def forward(self, x_RD: Tensor, ends_L: Tensor) -> Tensor:
        return grouped_experts(x_RD, ends_L, self.gate_up_proj, self.down_proj)


class MoE(nn.Module):
    """Route each token to its top-K experts, wherever they live, mix the results, and add the shared expert's."""

    def __init__(
        self, router: Router, experts: Experts, shared: MLP, dispatcher: Dispatcher, load: ExpertLoad | None = None
    ) -> None:
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared
        self.dispatcher = dispatcher
        self.load = load  # None: another rank counts

    def forward(self, x_TD: Tensor) -> Tensor:
        """Return (T, D). Collective: every rank of the EP axis must call it, even with T == 0."""
        weights_TK, expert_ids_TK = self.router(x_TD)
        if self.load is not None:
            self.load.note(expert_ids_TK)
        dispatched = self.dispatcher.dispatch(x_TD, expert_ids_TK, weights_TK)
        y_RD = self.experts(dispatched.x_RD, dispatched.ends_L)
        out_TD: Tensor = self.dispatcher.combine(y_RD, dispatched) + self.shared(x_TD)
        return out_TD
