"""Matrix products in C. The twin of linear is torch.nn.functional.linear."""

import ctypes

import torch
from torch import Tensor

from glm_worker.kernels.cpu.library import BF16, F32, Library, Team


class LinearArgs(ctypes.Structure):
    """glm_linear_args of linear.h."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("w", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("x_stride", ctypes.c_int64),
        ("y_stride", ctypes.c_int64),
        ("w_dtype", ctypes.c_int32),
        ("counter", ctypes.c_int32),
    ]


def dtype_code(dtype: torch.dtype) -> int:
    """Return what simd.h calls the type. Only fp32 and bf16 have kernels."""
    return {torch.float32: F32, torch.bfloat16: BF16}[dtype]


def linear(
    library: Library, team: Team, x_MK: Tensor, w_NK: Tensor, bias_N: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """Return x W^T + bias as (M, N) in fp32, of the named rows of x (int64) or of all.

    x is fp32 with rows that lie packed inside; W is fp32 or bf16 and packed; bias is fp32.
    """
    num_rows = len(x_MK) if rows is None else len(rows)
    y_MN = torch.empty(num_rows, len(w_NK))
    args = LinearArgs(
        x=x_MK.data_ptr(),
        w=w_NK.data_ptr(),
        bias=None if bias_N is None else bias_N.data_ptr(),
        y=y_MN.data_ptr(),
        rows=None if rows is None else rows.data_ptr(),
        m=num_rows,
        n=w_NK.shape[0],
        k=w_NK.shape[1],
        x_stride=x_MK.stride(0),
        y_stride=y_MN.stride(0),
        w_dtype=dtype_code(w_NK.dtype),
        counter=0,
    )
    library.function("glm_linear", (ctypes.c_void_p, ctypes.c_void_p))(team.pointer, ctypes.byref(args))
    return y_MN
