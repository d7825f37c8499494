"""What keeps the bits of a row apart from its neighbours on a CPU.

A library's matrix product computes a row by another kernel, and so in another order, where there are few rows, and a
vector operation rounds the elements left over behind the last whole vector in another way. So rows come in fours here.
With that, which kernel a row meets no longer depends on who shares the step, nor on whether it is a step of decode or a
part of a prefill. Whether it is enough is up to the libraries and the CPU: engine/probe.py looks.
"""

import torch
from torch import Tensor

LEAST_ROWS = 4  # MKL and oneDNN: fewer rows go other ways
_LANES = 16  # elements that a vector operation takes at once, at most


def whole_rows(num_rows: int) -> int:
    """Return the number of rows to compute where num_rows are wanted."""
    return -(-num_rows // LEAST_ROWS) * LEAST_ROWS


def with_whole_rows(x: Tensor) -> Tensor:
    """Return x with zeros behind its first dim's end, as many as whole_rows wants."""
    missing = whole_rows(x.shape[0]) - x.shape[0]
    return x if not missing else torch.cat([x, x.new_zeros(missing, *x.shape[1:])])


def fixed_sigmoid(x_TE: Tensor) -> Tensor:
    """Return x.sigmoid(), all elements rounded alike. T is a number of whole rows."""
    if LEAST_ROWS * x_TE.shape[-1] % _LANES == 0:
        return x_TE.sigmoid()
    return x_TE.neg().exp_().add_(1).reciprocal_()  # none of these has another way for what is left over
