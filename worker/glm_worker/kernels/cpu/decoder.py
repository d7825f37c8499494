"""Whole decoder layers in C (model.c): one call a step, or one between two exchanges of ranks.

The structures are those of model.h, where their dimensions are explained.
"""

import ctypes
from typing import Final

from glm_worker.kernels.cpu.library import Library, Team

_POINTER, _INT64, _INT32, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


def _fields(**types: str) -> tuple[tuple[str, type], ...]:
    """Return ctypes' fields of lists of names, a C type each; the order of the lists is that of the structure."""
    by_name = {"pointers": _POINTER, "int64s": _INT64, "int32s": _INT32, "floats": _FLOAT}
    return tuple((name, by_name[kind.rstrip("_")]) for kind, names in types.items() for name in names.split())


class LayerWeights(ctypes.Structure):
    """glm_layer."""

    _fields_ = _fields(
        pointers="attention_norm mlp_norm qkv qkv_bias q_norm k_norm o gate_up down",
        int64s="width",
        pointers_="router correction_bias expert_gate_up expert_down k_cache v_cache",
    )


class ModelArgs(ctypes.Structure):
    """glm_model."""

    _fields_ = _fields(
        pointers="layers embedding norm head cosines sines",
        int64s="num_layers hidden num_heads num_kv_heads head_dim half_rotary block_size vocab_rows"
        " num_experts num_chosen first_expert num_local expert_width",
        floats="eps routed_scale",
        int32s="is_normalized w_dtype kv_dtype",
    )


class StepArgs(ctypes.Structure):
    """glm_step."""

    _fields_ = _fields(
        pointers="token_ids positions slots logit_rows cu_query_lens context_lens block_tables",
        int64s="num_tokens num_seqs num_rows table_stride",
        pointers_="x normed qkv attended delta gate_up expert_ids expert_weights scores rows logits"
        " attention_scratch experts_scratch",
        int64s_="attention_scratch_bytes",
        pointers__="expert_tokens",
    )


class DecoderKernels:
    """The two functions of a decoder, for a team."""

    def __init__(self, library: Library, team: Team) -> None:
        pointers: Final = (_POINTER, _POINTER, _POINTER)
        self.isa = library.isa
        self.num_threads = team.num_threads
        self._team = team
        self._run = library.function("glm_model_run", (*pointers, _INT64, _INT64))
        self._scratch = library.function("glm_model_scratch", (*pointers[1:], ctypes.c_int, _POINTER))
        self._bytes = (ctypes.c_int64 * 2)()

    def run(self, model: ModelArgs, step: StepArgs, first: int, end: int) -> None:
        """Run stages first to end - 1: 2i is the attention of layer i, 2i + 1 its MLP, and the last is the head.

        Tokens and slots must be inside of their tables: nothing is checked here.
        """
        self._run(self._team.pointer, ctypes.byref(model), ctypes.byref(step), first, end)

    def scratch_bytes(self, model: ModelArgs, step: StepArgs) -> tuple[int, int]:
        """Return the bytes of scratch that attention and experts of a step must have."""
        self._scratch(ctypes.byref(model), ctypes.byref(step), self.num_threads, self._bytes)
        return self._bytes[0], self._bytes[1]
