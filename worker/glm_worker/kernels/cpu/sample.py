"""Sampling in C, a row a thread. The twin is the draw of engine/sampling/draw.py in torch."""

import ctypes
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.kernels.cpu.library import KernelsUnavailable, Library, Team, load

BROKEN: Final = -1
_ROWS_FOR_TEAM = 8  # fewer are drawn before other threads have woken up


class _SampleArgs(ctypes.Structure):
    """glm_sample_args of sample.h."""

    _fields_ = [
        ("logits", ctypes.c_void_p),
        ("rules", ctypes.c_void_p),
        ("token_ids", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("vocab", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    ]


class SampleKernel:
    """Draws with a team of threads."""

    def __init__(self, library: Library, team: Team) -> None:
        self._team, self._alone = team, Team(1)
        self._sample = library.function("glm_sample", (ctypes.c_void_p, ctypes.c_void_p))

    def draw(self, logits_SV: Tensor, rules_S5: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return a token id for each row; BROKEN where its largest logit is not a finite number.

        logits_SV: fp32 on the CPU, packed inside of rows. rules_S5: temperature (0: greedy), min_p (0: off), top_k (0:
        off), top_p (1: off), random number in [0, 1).
        """
        rules_S5 = np.ascontiguousarray(rules_S5, dtype=np.float64)
        num_rows, vocab_size = logits_SV.shape
        assert rules_S5.shape == (num_rows, 5), "there are rules for each row"
        assert logits_SV.stride(1) == 1, "rows are packed"
        token_ids_S = np.empty(num_rows, dtype=np.int64)
        args = _SampleArgs(
            logits=logits_SV.data_ptr(),
            rules=rules_S5.ctypes.data,
            token_ids=token_ids_S.ctypes.data,
            num_rows=num_rows,
            vocab=vocab_size,
            stride=logits_SV.stride(0),
        )
        if num_rows:
            team = self._team if num_rows >= _ROWS_FOR_TEAM else self._alone
            self._sample(team.pointer, ctypes.byref(args))
        return token_ids_S


def sample_kernel(num_threads: int) -> SampleKernel | None:
    """Return the kernel with a team of its own, or None where torch must draw."""
    try:
        return SampleKernel(load(), Team(num_threads))
    except KernelsUnavailable:
        return None  # the model has said so (model/glm_moe.py)
