"""Commit a fault on purpose: `make sanitize` runs this first, and goes on only where the process dies of it."""

import ctypes
import sys
from pathlib import Path

import torch

from glm_worker.kernels.cpu import library
from glm_worker.kernels.cpu.linear import LinearArgs

ROWS, INNER = 3, 64


def main(fault: str, path: str) -> None:
    library.PATH = Path(path).resolve()  # type: ignore[misc]
    team = library.Team(1)
    x, w, y = torch.ones(ROWS, INNER), torch.ones(16, INNER), torch.ones(ROWS, 64)
    args = LinearArgs(
        x=x.data_ptr(), w=w.data_ptr(), y=y.data_ptr(), m=ROWS, n=16, k=INNER, x_stride=INNER, y_stride=64, w_dtype=0
    )
    product = library.load("generic").function("glm_linear", (ctypes.c_void_p, ctypes.c_void_p))
    product(team.pointer, ctypes.byref(args))
    assert y[0, 0] == INNER, "without a fault it computes"
    if fault == "overrun":
        args.n = 17  # a row of weights that nobody gave
    elif fault == "overflow":
        args.y_stride = 2**62  # twice that is no int64
    elif fault == "use after free":
        del w
    product(team.pointer, ctypes.byref(args))


if __name__ == "__main__":
    main(*sys.argv[1:])
