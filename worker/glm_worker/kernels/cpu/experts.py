"""Router and routed experts of a sparse MoE layer, in C (experts.c): what a rank's part of it says of each token.

Shape suffixes: T tokens, D hidden size, E experts of the model, K experts a token, L experts of this rank, I width of
an expert, S width of the shared expert.

The bits of a token depend on that token only: on nobody else in the step, nor on the number of threads.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from glm_worker.kernels.cpu.library import BF16, F32, Library, Team, load

_DTYPES: Final = {torch.float32: F32, torch.bfloat16: BF16}
_POINTER, _INT64, _INT32, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class RouterArgs(ctypes.Structure):
    """glm_router_args of experts.h."""

    _fields_ = (
        ("x", _POINTER),
        ("x_stride", _INT64),
        ("weight", _POINTER),
        ("bias", _POINTER),
        ("num_tokens", _INT64),
        ("hidden", _INT64),
        ("num_experts", _INT64),
        ("num_chosen", _INT64),
        ("expert_ids", _POINTER),
        ("weights", _POINTER),
        ("scores", _POINTER),
        ("is_normalized", _INT32),
        ("scale", _FLOAT),
    )


class ExpertsArgs(ctypes.Structure):
    """glm_experts_args of experts.h."""

    _fields_ = (
        ("x", _POINTER),
        ("x_stride", _INT64),
        ("expert_ids", _POINTER),
        ("weights", _POINTER),
        ("num_tokens", _INT64),
        ("hidden", _INT64),
        ("num_chosen", _INT64),
        ("first_expert", _INT64),
        ("num_local", _INT64),
        ("width", _INT64),
        ("gate_up", _POINTER),
        ("down", _POINTER),
        ("shared_gate_up", _POINTER),
        ("shared_down", _POINTER),
        ("shared_width", _INT64),
        ("y", _POINTER),
        ("y_stride", _INT64),
        ("scratch", _POINTER),
        ("w_dtype", _INT32),
    )


@dataclass(frozen=True)
class ExpertWeights:
    """A rank's experts, fp32 or bf16, all of one dtype, contiguous. Gate's rows come first in gate_up."""

    gate_up_L2ID: Tensor
    down_LDI: Tensor
    first_expert: int = 0  # the model's id of the first one here
    shared_gate_up_2SD: Tensor | None = None  # None: another rank's
    shared_down_DS: Tensor | None = None

    def __post_init__(self) -> None:
        num_local, rows, hidden = self.gate_up_L2ID.shape
        _expect("gate_up", self.gate_up_L2ID, (num_local, rows // 2 * 2, hidden), *_DTYPES)
        _expect("down", self.down_LDI, (num_local, hidden, rows // 2), self.gate_up_L2ID.dtype)
        if (self.shared_gate_up_2SD is None) != (self.shared_down_DS is None):
            raise ValueError("the shared expert has gate_up and down, or neither; one of them is missing")
        if self.shared_gate_up_2SD is not None and self.shared_down_DS is not None:
            width = self.shared_gate_up_2SD.shape[0] // 2
            _expect("shared gate_up", self.shared_gate_up_2SD, (2 * width, hidden), self.gate_up_L2ID.dtype)
            _expect("shared down", self.shared_down_DS, (hidden, width), self.gate_up_L2ID.dtype)


def route(
    team: Team,
    x_TD: Tensor,
    weight_ED: Tensor,
    bias_E: Tensor,
    num_chosen: int,
    *,
    is_normalized: bool,
    scale: float,
    library: Library | None = None,
) -> tuple[Tensor, Tensor]:
    """Return weights (T, K) in fp32 and expert ids (T, K) in int32, ascending.

    Sigmoid scores; the bias takes part in the choice only, and of equal experts the lower id is chosen. All in fp32.
    """
    num_tokens, num_experts, hidden = x_TD.shape[0], *weight_ED.shape
    _expect("x", x_TD, (num_tokens, hidden), torch.float32, rows_apart=True)
    _expect("weight", weight_ED, (num_experts, hidden), torch.float32)
    _expect("bias", bias_E, (num_experts,), torch.float32)
    if not 0 < num_chosen <= num_experts:
        raise ValueError(f"{num_chosen} experts a token: allowed are 1 to {num_experts}, as many as the model has")
    weights_TK = torch.empty(num_tokens, num_chosen)
    expert_ids_TK = torch.empty(num_tokens, num_chosen, dtype=torch.int32)
    scores_TE = torch.empty(num_tokens, num_experts)
    args = RouterArgs(
        x=x_TD.data_ptr(),
        x_stride=x_TD.stride(0),
        weight=weight_ED.data_ptr(),
        bias=bias_E.data_ptr(),
        num_tokens=num_tokens,
        hidden=hidden,
        num_experts=num_experts,
        num_chosen=num_chosen,
        expert_ids=expert_ids_TK.data_ptr(),
        weights=weights_TK.data_ptr(),
        scores=scores_TE.data_ptr(),
        is_normalized=is_normalized,
        scale=scale,
    )
    _functions(library or load()).router(team.pointer, ctypes.byref(args))
    return weights_TK, expert_ids_TK


def feed_forward(
    team: Team,
    x_TD: Tensor,
    expert_ids_TK: Tensor,
    weights_TK: Tensor,
    experts: ExpertWeights,
    library: Library | None = None,
) -> Tensor:
    """Return (T, D) in fp32: what the experts here say of each token, weighted and summed, and the shared expert.

    Ids (int32) of experts that are not here are passed over. Activations are fp32; with bf16 weights they are rounded
    where the CPU multiplies bf16 (Library.has_bf16_products).
    """
    (num_tokens, num_chosen), (num_local, rows, hidden) = expert_ids_TK.shape, experts.gate_up_L2ID.shape
    _expect("x", x_TD, (num_tokens, hidden), torch.float32, rows_apart=True)
    _expect("expert_ids", expert_ids_TK, (num_tokens, num_chosen), torch.int32)
    _expect("weights", weights_TK, (num_tokens, num_chosen), torch.float32)
    y_TD = torch.empty(num_tokens, hidden)
    shared_gate_up, shared_down = experts.shared_gate_up_2SD, experts.shared_down_DS
    args = ExpertsArgs(
        x=x_TD.data_ptr(),
        x_stride=x_TD.stride(0),
        expert_ids=expert_ids_TK.data_ptr(),
        weights=weights_TK.data_ptr(),
        num_tokens=num_tokens,
        hidden=hidden,
        num_chosen=num_chosen,
        first_expert=experts.first_expert,
        num_local=num_local,
        width=rows // 2,
        gate_up=experts.gate_up_L2ID.data_ptr(),
        down=experts.down_LDI.data_ptr(),
        shared_gate_up=None if shared_gate_up is None else shared_gate_up.data_ptr(),
        shared_down=None if shared_down is None else shared_down.data_ptr(),
        shared_width=0 if shared_gate_up is None else shared_gate_up.shape[0] // 2,
        y=y_TD.data_ptr(),
        y_stride=hidden,
        w_dtype=_DTYPES[experts.gate_up_L2ID.dtype],
    )
    functions = _functions(library or load())
    scratch = torch.empty(functions.scratch_bytes(ctypes.byref(args)), dtype=torch.uint8)
    args.scratch = scratch.data_ptr()
    functions.experts(team.pointer, ctypes.byref(args))
    return y_TD


@dataclass(frozen=True)
class _Functions:
    """ctypes has no type for a function of any kind."""

    router: Any
    experts: Any
    scratch_bytes: Any


@cache
def _functions(library: Library) -> _Functions:
    return _Functions(
        library.function("glm_router", (_POINTER, ctypes.POINTER(RouterArgs))),
        library.function("glm_experts", (_POINTER, ctypes.POINTER(ExpertsArgs))),
        library.function("glm_experts_scratch", (ctypes.POINTER(ExpertsArgs),), _INT64),
    )


def _expect(name: str, x: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype, rows_apart: bool = False) -> None:
    """Refuse what the kernel would read wrongly."""
    if tuple(x.shape) != shape or x.dtype not in dtypes or x.device.type != "cpu":
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"{name} is {tuple(x.shape)} of {x.dtype} on {x.device}; it must be {shape} of {wanted} on cpu"
        )
    if not (x.is_contiguous() or (rows_apart and x.stride(-1) == 1)):
        raise ValueError(f"{name} has strides {x.stride()}; it must be contiguous")
