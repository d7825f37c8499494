"""The decoder on a GPU by kernels in Triton: the same model, weights and cache as the modules beside it.

A MoE layer is about 20 launches instead of some 100, and none asks the host anything, so a graph can hold a step.
NOT RUN ON A GPU YET: tests compare it with the modules by Triton's interpreter. GLM_CUDA_KERNELS=triton chooses it.

Shape suffixes: T tokens of the step, D hidden size, S rows whose logits are wanted, E experts, K experts a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_worker.kernels.cuda.experts import fused_experts, route
from glm_worker.kernels.cuda.paged_attention import CudaPlan, paged_attention
from glm_worker.kernels.cuda.rows import HeadWeights, add_norm, rotate_and_store
from glm_worker.model.attention import Attention
from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import Capture, DecodeGraphs, GraphRoom, Tell
from glm_worker.model.expert_load import ExpertLoad
from glm_worker.model.forward_batch import ForwardBatch, Hear
from glm_worker.model.kv_cache import KVCache, LayerKV
from glm_worker.model.layers import MLP, Embedding, RMSNorm, VocabParallelHead, rotation_angles
from glm_worker.model.moe import MoE
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis

Layer = tuple[Attention, MLP | MoE, RMSNorm, RMSNorm]


@dataclass(frozen=True)
class CudaStep:
    """What the layers of a step share."""

    batch: ForwardBatch
    plan: CudaPlan


class CudaDecoder:
    """All layers of a rank."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Embedding,
        layers: Sequence[Layer],
        norm: RMSNorm,
        head: VocabParallelHead,
        load: ExpertLoad | None,
    ) -> None:
        self._config, self._embedding, self._layers = config, embedding, tuple(layers)
        self._norm, self._head, self._load = norm, head, load
        self._comm: Communicator = head.comm
        self._experts = self._comm.mesh.experts(config.n_routed_experts)
        _, self._num_kv_heads, _ = self._layers[0][0].split
        self._group_size = self._layers[0][0].split[0] // self._num_kv_heads
        positions = torch.arange(config.max_position_embeddings, device=embedding.weight.device)
        angles_PR = rotation_angles(positions, config.rotary_dim, config.rope_theta)
        self._cosines_PR, self._sines_PR = angles_PR.cos(), angles_PR.sin()
        self._heads = [_head_weights(attention, config.rms_norm_eps) for attention, *_ in self._layers]
        self._graphs: DecodeGraphs | None = None

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """Batch sizes of decode steps that a graph computes."""
        return () if self._graphs is None else self._graphs.sizes

    def capture(self, kv_cache: KVCache, room: GraphRoom, capture: Capture, tell: Tell) -> None:
        """Have decode steps over this cache computed by graphs from now on. Collective over all ranks."""
        graphs = DecodeGraphs(
            lambda batch: self._compute(CudaStep(batch, self._decode_plan(batch)), kv_cache),
            capture,
            room,
            self._embedding.weight.device,
        )
        graphs.capture(tell)
        self._graphs = graphs

    def plan(self, batch: ForwardBatch) -> CudaStep:
        """Return the step of a batch. Not collective."""
        if batch.max_query_len == 1:
            return CudaStep(batch, self._decode_plan(batch))
        lens_B = np.diff(batch.host.cu_query_lens_B1).astype(np.int32)
        plan = CudaPlan.of_step(
            lens_B,
            batch.cu_query_lens_B1,
            batch.context_lens_B,
            batch.block_tables_BM,
            self._group_size,
            self._num_kv_heads,
        )
        return CudaStep(batch, plan)

    def forward(self, step: CudaStep, kv_cache: KVCache, hear: Hear | None = None) -> Tensor:
        """Return logits (S, V) in fp32, the same on every rank, and store the step's keys and values in the cache.

        A graph's logits are copied, so that the next step may run while these are sampled; no graph computes what is
        heard. Collective over all ranks.
        """
        if self._graphs is not None and hear is None:
            logits_SV = self._graphs.run(step.batch)
            if logits_SV is not None:
                return logits_SV.clone()
        return self._compute(step, kv_cache, hear)

    def _decode_plan(self, batch: ForwardBatch) -> CudaPlan:
        return CudaPlan.of_decode(
            batch.cu_query_lens_B1, batch.context_lens_B, batch.block_tables_BM, self._num_kv_heads
        )

    def _compute(self, step: CudaStep, kv_cache: KVCache, hear: Hear | None = None) -> Tensor:
        with torch.inference_mode():
            return self._logits(step, kv_cache, hear)

    def _logits(self, step: CudaStep, kv_cache: KVCache, hear: Hear | None) -> Tensor:
        batch, eps = step.batch, self._config.rms_norm_eps
        x_TD = self._embedding(batch.token_ids_T)
        if hear is not None:
            hear(0, x_TD)
        delta_TD: Tensor | None = None
        chosen: list[Tensor] = []
        layers = zip(self._layers, self._heads, kv_cache.layers, strict=True)
        for number, (layer, heads, kv) in enumerate(layers, 1):
            attention, mlp, attention_norm, mlp_norm = layer
            normed_TD = add_norm(x_TD, delta_TD, attention_norm.weight, eps)
            delta_TD = self._attend(attention, heads, normed_TD, step, kv)
            normed_TD = add_norm(x_TD, delta_TD, mlp_norm.weight, eps)
            delta_TD = mlp(normed_TD) if isinstance(mlp, MLP) else self._mix(mlp, normed_TD, chosen)
            if hear is not None:
                hear(number, x_TD + delta_TD)  # which the next norm would add
        self._count(chosen, batch.slots_T)
        rows_SD = x_TD[batch.logit_rows_S]
        last_SD = None if delta_TD is None else delta_TD[batch.logit_rows_S]
        logits_SV: Tensor = self._head(add_norm(rows_SD, last_SD, self._norm.weight, eps))
        return logits_SV.float()

    def _attend(self, attention: Attention, heads: HeadWeights, x_TD: Tensor, step: CudaStep, kv: LayerKV) -> Tensor:
        q_THC = rotate_and_store(
            F.linear(x_TD, attention.qkv_proj.weight),
            heads,
            self._cosines_PR,
            self._sines_PR,
            step.batch.positions_T,
            step.batch.slots_T,
            kv.k,
            kv.v,
        )
        out_TD: Tensor = attention.o_proj(paged_attention(q_THC, kv.k, kv.v, step.plan).flatten(1))
        return out_TD

    def _mix(self, moe: MoE, x_TD: Tensor, chosen: list[Tensor]) -> Tensor:
        router = moe.router
        weights_TK, ids_TK = route(
            F.linear(x_TD.float(), router.weight),
            router.correction_bias,
            router.num_chosen,
            is_normalized=router.is_normalized,
            scale=router.scale,
        )
        chosen.append(ids_TK)
        experts = moe.experts
        out_TD = fused_experts(x_TD, ids_TK, weights_TK, experts.gate_up_proj, experts.down_proj, self._experts.start)
        shared_TD: Tensor = moe.shared(x_TD)
        return self._comm.all_reduce(out_TD, Axis.EP) + shared_TD

    def _count(self, chosen: list[Tensor], slots_T: Tensor) -> None:
        """Add the layers' choices to the load of experts; rows that fill up a graph count for nobody."""
        if self._load is None or not chosen:
            return
        ids_LTK = torch.stack(chosen)
        counts_LTK = (slots_T >= 0).to(torch.int64)[None, :, None].expand(ids_LTK.shape)
        self._load.counts.scatter_add_(0, ids_LTK.flatten().long(), counts_LTK.flatten())


def _head_weights(attention: Attention, eps: float) -> HeadWeights:
    return HeadWeights(
        attention.qkv_proj.bias,
        attention.q_norm.weight if attention.q_norm else None,
        attention.k_norm.weight if attention.k_norm else None,
        eps,
    )
