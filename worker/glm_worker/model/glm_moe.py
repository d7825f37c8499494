"""The glm4_moe decoder: GLM-4.5, 4.5-Air, 4.6, 4.7 and their fine-tunes. build is where the mesh meets the layers.

Shape suffixes: T tokens of the step, D hidden size, S rows whose logits are wanted, V vocabulary.
"""

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from glm_worker.kernels.cpu.decoder import DecoderKernels
from glm_worker.kernels.cpu.library import KernelsUnavailable, Team, load
from glm_worker.kernels.fixed_attention import FixedPlan
from glm_worker.kernels.fixed_order import with_whole_rows
from glm_worker.kernels.paged_attention import AttentionPlan
from glm_worker.model.attention import Attention, AttentionStep
from glm_worker.model.config import ModelConfig
from glm_worker.model.cpu_decoder import CpuDecoder, CpuStep
from glm_worker.model.expert_load import ExpertLoad
from glm_worker.model.forward_batch import ForwardBatch, Hear
from glm_worker.model.kv_cache import KVCache, LayerKV
from glm_worker.model.layers import MLP, Embedding, Placement, RMSNorm, Rotation, RowParallelLinear, VocabParallelHead
from glm_worker.model.moe import Experts, MoE, Router
from glm_worker.parallel.dispatch import AllReduceDispatcher, Dispatcher, LocalDispatcher
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh

if TYPE_CHECKING:
    from glm_worker.model.cuda_decoder import CudaDecoder, CudaStep
    from glm_worker.model.decode_graphs import GraphRoom, Tell

_log = logging.getLogger("glm_worker.model")


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); mlp is dense in the first layers and a MoE in the others."""

    def __init__(self, attention: Attention, mlp: MLP | MoE, attention_norm: RMSNorm, mlp_norm: RMSNorm) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = attention_norm, mlp_norm

    def forward(self, x_TD: Tensor, step: AttentionStep, kv: LayerKV) -> Tensor:
        x_TD = x_TD + self.attention(self.attention_norm(x_TD), step, kv)
        out_TD: Tensor = x_TD + self.mlp(self.mlp_norm(x_TD))
        return out_TD


class GlmMoe(nn.Module):
    """The whole model, or this rank's part of it."""

    def __init__(
        self,
        config: ModelConfig,
        embed_tokens: Embedding,
        layers: list[DecoderLayer],
        norm: RMSNorm,
        lm_head: VocabParallelHead,
        expert_load: ExpertLoad | None = None,
        *,
        fixed_order: bool = False,
    ) -> None:
        """fixed_order: as in Placement; what a step lacks to whole rows is filled up here."""
        super().__init__()
        self.config = config
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(layers)
        self._layers = tuple(layers)  # the same, with their type
        self.norm = norm
        self.lm_head = lm_head
        self.expert_load = expert_load  # None: rank 0 counts, and this is another one
        self.fixed_order = fixed_order
        self._decoder: CpuDecoder | None = None
        self._cuda: CudaDecoder | None = None
        self.hear: Hear | None = None  # for whoever compares layers; none where it serves

    @property
    def kernels(self) -> str:
        """What computes the layers: torch, or the instruction set of the kernels in C."""
        if self._cuda is not None:
            return "triton"
        return "torch" if self._decoder is None else self._decoder.name

    def use_kernels(self, num_threads: int) -> None:
        """Compute by the kernels in C from now on, where this CPU and this package have them; parameters are set.

        Call it in the process that computes: its threads do not survive a fork.
        """
        weight = self.embed_tokens.weight
        if weight.device.type != "cpu":
            return
        try:
            kernels = DecoderKernels(load(), Team(num_threads))
        except KernelsUnavailable as error:
            _log.warning("torch computes the layers, several times slower than the kernels in C: %s", error)
            return
        layers = [(layer.attention, layer.mlp, layer.attention_norm, layer.mlp_norm) for layer in self._layers]
        self._decoder = CpuDecoder(
            self.config, self.embed_tokens, layers, self.norm, self.lm_head, self.expert_load, kernels
        )
        _log.info("kernels in C compute the layers: %s with %d threads, %s", kernels.isa, num_threads, weight.dtype)

    def use_triton(self) -> None:
        """Compute by the kernels in Triton from now on; parameters are set and on a GPU."""
        from glm_worker.model.cuda_decoder import CudaDecoder  # imports Triton, which nobody else is to wait for

        layers = [(layer.attention, layer.mlp, layer.attention_norm, layer.mlp_norm) for layer in self._layers]
        self._cuda = CudaDecoder(self.config, self.embed_tokens, layers, self.norm, self.lm_head, self.expert_load)
        _log.warning("kernels in Triton compute the layers: they were checked by an interpreter, and by no GPU yet")

    def capture_graphs(self, kv_cache: KVCache, room: "GraphRoom", tell: "Tell") -> None:
        """Have decode steps computed by CUDA graphs over this cache, where Triton computes the layers. Collective.

        tell: how many are captured, and of how many. What they hold of the GPU's memory is logged.
        """
        if self._cuda is None:
            return
        from glm_worker.model.decode_graphs import CudaCapture

        free_bytes = torch.cuda.mem_get_info()[0]
        self._cuda.capture(kv_cache, room, CudaCapture(), tell)
        held = (free_bytes - torch.cuda.mem_get_info()[0]) / 2**20
        _log.info("decode steps of %s sequences are CUDA graphs, which hold %.0f MiB", self._cuda.graph_sizes, held)

    @torch.inference_mode()
    def plan(self, batch: ForwardBatch) -> "AttentionStep | CpuStep | CudaStep":
        """Return what the layers share in the step of a batch. Looks at the host's arrays only; not collective."""
        if self._cuda is not None:
            return self._cuda.plan(batch)
        if self._decoder is not None:
            return self._decoder.plan(batch)
        positions_T = with_whole_rows(batch.positions_T) if self.fixed_order else batch.positions_T
        dtype = self.embed_tokens.weight.dtype
        host = batch.host
        lens = host.cu_query_lens_B1, host.context_lens_B, host.block_tables_BM, batch.block_size
        return AttentionStep(
            rotation=Rotation(positions_T, self.config.rotary_dim, self.config.rope_theta, dtype),
            slots_T=batch.slots_T,
            plan=FixedPlan.build(*lens, dtype)
            if self.fixed_order
            else AttentionPlan.build(*lens, batch.positions_T.device),
        )

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, step: "AttentionStep | CpuStep | CudaStep", kv_cache: KVCache) -> Tensor:
        """Return logits (S, V) in fp32, the same on every rank, and store the batch's keys and values in the cache.

        step: what plan returned for this batch. Collective over all ranks, each with the same batch.
        """
        if self._cuda is not None:
            assert not isinstance(step, AttentionStep | CpuStep), "a decoder in Triton plans its own steps"
            return self._cuda.forward(step, kv_cache, self.hear)
        if isinstance(step, CpuStep):
            assert self._decoder is not None, "only a decoder in C plans such steps"
            return self._decoder.forward(step, kv_cache, self.hear)
        token_ids_T, logit_rows_S = batch.token_ids_T, batch.logit_rows_S
        if self.fixed_order:
            token_ids_T, logit_rows_S = map(with_whole_rows, (token_ids_T, logit_rows_S))
        x_TD = self.embed_tokens(token_ids_T)
        if self.hear is not None:
            self.hear(0, x_TD)
        for number, (layer, kv) in enumerate(zip(self.layers, kv_cache.layers, strict=True), 1):
            x_TD = layer(x_TD, step, kv)
            if self.hear is not None:
                self.hear(number, x_TD)
        if self.expert_load is not None:
            self.expert_load.count(len(batch.token_ids_T))
        logits_SV: Tensor = self.lm_head(self.norm(x_TD[logit_rows_S]))
        return logits_SV[: len(batch.logit_rows_S)].float()


def build(
    config: ModelConfig,
    mesh: Mesh,
    comm: Communicator,
    device: torch.device,
    dtype: torch.dtype,
    *,
    fixed_order: bool = False,
) -> GlmMoe:
    """Return this rank's part of the model, weights unset. Raises ConfigError where mesh and model do not fit."""
    assert not fixed_order or device.type == "cpu", "kernels of GPUs choose their order themselves"
    place = Placement(device, dtype, fixed_order)
    load = ExpertLoad(config.n_routed_experts, device) if mesh.rank == 0 else None

    def norm() -> RMSNorm:
        return RMSNorm(config.hidden_size, config.rms_norm_eps, place)

    def layer(layer_id: int) -> DecoderLayer:
        mlp = (
            MLP(config.hidden_size, config.intermediate_size, place)
            if config.is_dense(layer_id)
            else _moe(config, mesh, comm, place, load)
        )
        return DecoderLayer(_attention(config, mesh, comm, place), mlp, norm(), norm())

    return GlmMoe(
        config,
        Embedding(config.vocab_size, config.hidden_size, place),
        [layer(layer_id) for layer_id in range(config.num_hidden_layers)],
        norm(),
        VocabParallelHead(config.hidden_size, config.vocab_size, mesh.vocab_share(config.vocab_size), comm, place),
        load,
        fixed_order=fixed_order,
    )


def _attention(config: ModelConfig, mesh: Mesh, comm: Communicator, place: Placement) -> Attention:
    num_heads = len(mesh.heads(config.num_attention_heads, "num_attention_heads"))
    num_kv_heads = len(mesh.heads(config.num_key_value_heads, "num_key_value_heads"))
    o_proj = RowParallelLinear(num_heads * config.head_dim, config.hidden_size, comm, place)
    return Attention(config, num_heads, num_kv_heads, o_proj, place)


def _moe(config: ModelConfig, mesh: Mesh, comm: Communicator, place: Placement, load: ExpertLoad | None) -> MoE:
    local = mesh.experts(config.n_routed_experts)
    dispatcher: Dispatcher = (
        LocalDispatcher(local, fixed_order=place.fixed_order)
        if mesh.world_size == 1
        else AllReduceDispatcher(local, comm, fixed_order=place.fixed_order)
    )
    shared = MLP(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts, place)
    return MoE(Router(config, place), Experts(config, len(local), place), shared, dispatcher, load)
