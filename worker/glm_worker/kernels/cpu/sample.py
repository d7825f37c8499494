"""Sampling in C, a row a thread. The twin is the draw of engine/sampling/draw.py in torch."""

import ctypes
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glm_worker.kernels.cpu.library import KernelsUnavailable, Library, Team, load

Rule: TypeAlias = tuple[float, float, int, float, float]
"""Of a row: temperature (0: greedy), min_p (0: off), top_k (0: off), top_p (1: off), random number in [0, 1)."""

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
        self._team, self._alone, self._args = team, Team(1), _SampleArgs()
        self._sample = library.function("glm_sample", (ctypes.c_void_p, ctypes.c_void_p))
        self._make_room(1)

    def draw(self, logits_SV: Tensor, rules: Sequence[Rule]) -> NDArray[np.int64]:
        """Return a token id for each row, in an array of its own; BROKEN where its largest logit is no finite number.

        logits_SV: fp32 on the CPU, packed inside of rows. rules: of each row.
        """
        (num_rows, vocab_size), (row_stride, stride) = logits_SV.shape, logits_SV.stride()
        assert len(rules) == num_rows, "there are rules for each row"
        assert stride == 1, "rows are packed"
        if num_rows > len(self._token_ids_S):
            self._make_room(2 * num_rows)
        if num_rows:
            self._rules_S5[:num_rows] = rules
            args = self._args
            args.logits, args.num_rows, args.vocab = logits_SV.data_ptr(), num_rows, vocab_size
            args.stride = row_stride
            team = self._team if num_rows >= _ROWS_FOR_TEAM else self._alone
            self._sample(team.pointer, ctypes.byref(args))
        return self._token_ids_S[:num_rows].copy()

    def _make_room(self, num_rows: int) -> None:
        """Have arrays for so many rows. They stay: asking where an array is takes longer than a draw."""
        self._rules_S5 = np.zeros((num_rows, 5), dtype=np.float64)
        self._token_ids_S = np.zeros(num_rows, dtype=np.int64)
        self._args.rules, self._args.token_ids = self._rules_S5.ctypes.data, self._token_ids_S.ctypes.data


def sample_kernel(num_threads: int) -> SampleKernel | None:
    """Return the kernel with a team of its own, or None where torch must draw."""
    try:
        return SampleKernel(load(), Team(num_threads))
    except KernelsUnavailable:
        return None  # the model has said so (model/glm_moe.py)
