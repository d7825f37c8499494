"""The decoder on a CPU in C: the same model, weights and cache as the modules beside it, a few calls a step.

The modules hold the parameters, and this holds their addresses: parameters must neither move nor change their type
afterwards. Everything between the layers is fp32, whatever the type of the weights.

Shape suffixes: T tokens of the step, D hidden size, S rows whose logits are wanted, P positions, R rotated dims.
"""

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glm_worker.kernels.cpu.decoder import DecoderKernels, LayerWeights, ModelArgs, StepArgs
from glm_worker.kernels.cpu.library import BF16, F32
from glm_worker.model.attention import Attention
from glm_worker.model.config import ModelConfig
from glm_worker.model.expert_load import ExpertLoad
from glm_worker.model.forward_batch import ForwardBatch, Hear
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.layers import MLP, Embedding, RMSNorm, VocabParallelHead, rotation_angles
from glm_worker.model.moe import MoE
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis

DTYPES = {torch.float32: F32, torch.bfloat16: BF16}
_LONG_STEP = 64  # tokens; from here on each layer is a call of its own, so that the watch hears of it
_FIRST_POSITIONS = 4096
_SHARE_ROWS = 16  # of a shared expert's width that ranks divide


@dataclass(frozen=True)
class CpuStep:
    """A step's arguments. Buffers are those of the decoder: good until the next step is planned."""

    args: StepArgs
    batch: ForwardBatch  # keeps what args points to


class CpuDecoder:
    """All layers of a rank."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Embedding,
        layers: list[tuple[Attention, MLP | MoE, RMSNorm, RMSNorm]],
        norm: RMSNorm,
        head: VocabParallelHead,
        load: ExpertLoad | None,
        kernels: DecoderKernels,
    ) -> None:
        self._config, self._head, self._load, self._kernels = config, head, load, kernels
        self._comm: Communicator = head.comm
        self._kept: list[Tensor] = []  # copies that the C side reads
        self._buffers: dict[str, Tensor] = {}
        self._is_sparse = [isinstance(mlp, MoE) for _, mlp, _, _ in layers]
        self._widest = max(
            (mlp.down_proj.weight.shape[1] for _, mlp, _, _ in layers if isinstance(mlp, MLP)), default=0
        )
        self._weights = (LayerWeights * len(layers))(*(self._layer(*layer) for layer in layers))
        num_heads, num_kv_heads, _ = layers[0][0].split
        experts = self._comm.mesh.experts(config.n_routed_experts)
        self._model = ModelArgs(
            layers=ctypes.addressof(self._weights),
            embedding=self._address(embedding.weight),
            norm=self._small(norm.weight),
            head=self._address(head.weight),
            num_layers=len(layers),
            hidden=config.hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=config.head_dim,
            half_rotary=config.rotary_dim // 2,
            vocab_rows=head.weight.shape[0],
            num_experts=config.n_routed_experts,
            num_chosen=config.num_experts_per_tok,
            first_expert=experts.start,
            num_local=len(experts),
            expert_width=config.moe_intermediate_size,
            eps=config.rms_norm_eps,
            routed_scale=config.routed_scaling_factor,
            is_normalized=int(config.norm_topk_prob),
            w_dtype=DTYPES[embedding.weight.dtype],
        )
        self._num_positions = 0
        self._planned: CpuStep | None = None  # the last one
        self._cache: KVCache | None = None

    @property
    def name(self) -> str:
        """What computes, for people: the instruction set."""
        return f"cpu-{self._kernels.isa}"

    def plan(self, batch: ForwardBatch) -> CpuStep:
        """Return the step of a batch, with room for all that it computes. Not collective."""
        self._rotate_up_to(batch.max_context_len)
        self._model.block_size = batch.block_size
        known = self._planned
        is_known = known is not None and known.batch.has_arrays_of(batch)
        args = known.args if known is not None and is_known else self._args(batch)
        attention, experts = self._kernels.scratch_bytes(self._model, args)
        args.attention_scratch, args.attention_scratch_bytes = self._room("attention", attention // 4 + 1), attention
        args.experts_scratch = self._room("experts", experts // 4 + 1)
        self._planned = CpuStep(args, batch)
        return self._planned

    def _args(self, batch: ForwardBatch) -> StepArgs:
        """Return the addresses of a batch and of the buffers that its step needs, without scratch."""
        config, model = self._config, self._model
        num_tokens, num_rows = len(batch.token_ids_T), len(batch.logit_rows_S)
        heads = model.num_heads + 2 * model.num_kv_heads
        floats = {
            "x": config.hidden_size,
            "normed": config.hidden_size,
            "qkv": heads * config.head_dim,
            "attended": model.num_heads * config.head_dim,
            "delta": config.hidden_size,
            "gate_up": 2 * self._widest,
            "expert_weights": config.num_experts_per_tok,
            "scores": config.n_routed_experts,
            "expert_ids": config.num_experts_per_tok,  # int32, which is as wide
        }
        return StepArgs(
            **{name: self._room(name, num_tokens * width) for name, width in floats.items()},
            token_ids=batch.token_ids_T.data_ptr(),
            positions=batch.positions_T.data_ptr(),
            slots=batch.slots_T.data_ptr(),
            logit_rows=batch.logit_rows_S.data_ptr(),
            cu_query_lens=batch.cu_query_lens_B1.data_ptr(),
            context_lens=batch.context_lens_B.data_ptr(),
            block_tables=batch.block_tables_BM.data_ptr(),
            table_stride=batch.block_tables_BM.stride(0),
            num_tokens=num_tokens,
            num_seqs=len(batch.context_lens_B),
            num_rows=num_rows,
            rows=self._room("rows", num_rows * config.hidden_size),
            expert_tokens=self._load.counts.data_ptr() if self._load else None,
        )

    def forward(self, step: CpuStep, kv_cache: KVCache, hear: Hear | None = None) -> Tensor:
        """Return logits (S, V) in fp32, the same on every rank, and store the step's keys and values in the cache.

        hear: of one rank alone. Collective over all ranks, each with the same batch.
        """
        self._bind(kv_cache)
        args, num_tokens = step.args, step.args.num_tokens
        logits_SV = torch.empty(args.num_rows, self._model.vocab_rows)
        args.logits = logits_SV.data_ptr()
        begin = 0 if hear is None else self._run_aloud(args, hear)
        for end, axis in self._exchanges(num_tokens) if begin == 0 else ():
            self._kernels.run(self._model, args, begin, end)
            self._comm.all_reduce(self._rows("delta", num_tokens), axis)
            begin = end
        self._kernels.run(self._model, args, begin, 2 * len(self._weights) + 1)
        gathered_SV = self._comm.all_gather(logits_SV, Axis.TP)
        vocab_size = self._config.vocab_size
        # No view of the same: a step's weights have driven torch out of the caches, and each call of it is slow
        return gathered_SV if gathered_SV.shape[1] == vocab_size else gathered_SV[:, :vocab_size]

    def _run_aloud(self, args: StepArgs, hear: Hear) -> int:
        """Run all stages but the head's, one by one, and return that one's number. For one rank alone."""
        assert self._comm.mesh.world_size == 1, "between its stages ranks add up"
        x_TD, delta_TD = (self._rows(name, args.num_tokens) for name in ("x", "delta"))
        head = 2 * len(self._weights)
        for stage in range(head):
            self._kernels.run(self._model, args, stage, stage + 1)
            if stage == 0:
                hear(0, x_TD)
            elif stage % 2:
                hear(stage // 2 + 1, x_TD + delta_TD)  # which the next stage would add
        return head

    def _rows(self, name: str, num_tokens: int) -> Tensor:
        return self._buffers[name][: num_tokens * self._config.hidden_size].view(num_tokens, -1)

    def _exchanges(self, num_tokens: int) -> Iterator[tuple[int, Axis]]:
        """Yield the stages before which ranks add up, and over which of them. One rank has its watch told thereby."""
        is_alone = self._comm.mesh.world_size == 1
        for layer, is_sparse in enumerate(self._is_sparse):
            if self._comm.mesh.size(Axis.TP) > 1:
                yield 2 * layer + 1, Axis.TP
            if num_tokens >= _LONG_STEP if is_alone else is_sparse:
                yield 2 * layer + 2, Axis.EP

    def _layer(self, attention: Attention, mlp: MLP | MoE, attention_norm: RMSNorm, mlp_norm: RMSNorm) -> LayerWeights:
        weights = LayerWeights(
            attention_norm=self._small(attention_norm.weight),
            mlp_norm=self._small(mlp_norm.weight),
            qkv=self._address(attention.qkv_proj.weight),
            qkv_bias=self._small(attention.qkv_proj.bias),
            q_norm=self._small(attention.q_norm.weight if attention.q_norm else None),
            k_norm=self._small(attention.k_norm.weight if attention.k_norm else None),
            o=self._address(attention.o_proj.weight),
        )
        if isinstance(mlp, MLP):
            gate_up, down = self._whole(mlp)
        else:
            gate_up, down = self._share(mlp.shared)
            weights.router = self._small(mlp.router.weight)
            weights.correction_bias = self._small(mlp.router.correction_bias)
            weights.expert_gate_up = self._address(mlp.experts.gate_up_proj)
            weights.expert_down = self._address(mlp.experts.down_proj)
        if down.shape[1]:
            weights.gate_up, weights.down, weights.width = self._address(gate_up), self._address(down), down.shape[1]
        return weights

    def _share(self, shared: MLP) -> tuple[Tensor, Tensor]:
        """Return this rank's part of a shared expert: ranks add up its results as those of the routed ones."""
        mesh = self._comm.mesh
        gate_up, down = self._whole(shared)
        if mesh.world_size == 1:
            return self._whole(shared)
        width = down.shape[1]
        share = math.ceil(width / mesh.world_size / _SHARE_ROWS) * _SHARE_ROWS
        part = slice(min(mesh.rank * share, width), min((mesh.rank + 1) * share, width))
        gate, up = gate_up.view(2, width, -1)[:, part]
        own = torch.cat([gate, up]).contiguous(), down[:, part].contiguous()
        self._kept += own
        return own

    @staticmethod
    def _whole(mlp: MLP) -> tuple[Tensor, Tensor]:
        return mlp.gate_up_proj.weight, mlp.down_proj.weight

    def _bind(self, kv_cache: KVCache) -> None:
        if kv_cache is self._cache:
            return
        for weights, kv in zip(self._weights, kv_cache.layers, strict=True):
            weights.k_cache, weights.v_cache = self._address(kv.k), self._address(kv.v)
        self._model.kv_dtype = DTYPES[kv_cache.layers[0].k.dtype]
        self._cache = kv_cache

    def _rotate_up_to(self, num_positions: int) -> None:
        """Have cosines and sines of that many positions: doubled when they run out, so that long models start fast."""
        if num_positions <= self._num_positions:
            return
        self._num_positions = max(_FIRST_POSITIONS, 2 * self._num_positions, num_positions)
        angles_PR = rotation_angles(torch.arange(self._num_positions), self._config.rotary_dim, self._config.rope_theta)
        self._buffers["cosines"], self._buffers["sines"] = angles_PR.cos(), angles_PR.sin()
        self._model.cosines = self._buffers["cosines"].data_ptr()
        self._model.sines = self._buffers["sines"].data_ptr()

    def _room(self, name: str, num_words: int) -> int:
        """Return the address of 4-byte words, at least so many; contents are lost when it grows."""
        found = self._buffers.get(name)
        if found is None or found.numel() < num_words:
            found = self._buffers[name] = torch.empty(max(num_words, 1))
        return found.data_ptr()

    def _small(self, tensor: Tensor | None) -> int | None:
        """Return the address of a vector in fp32, a copy where it has another type."""
        if tensor is None:
            return None
        wide = tensor.detach().float().contiguous()
        self._kept.append(wide)
        return wide.data_ptr()

    @staticmethod
    def _address(tensor: Tensor | nn.Parameter) -> int:
        assert tensor.is_contiguous(), "kernels take packed weights"
        return tensor.data_ptr()
