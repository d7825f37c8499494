"""Memory in pages of 2 MiB in place of 4 KiB, for what every step reads from end to end: weights.

A thread that reads memory in order finds the next page sooner: 18 GB/s became 33 on the machine that this was measured
on. Linux gives such pages where it has some and /sys/kernel/mm/transparent_hugepage/enabled is not `never`.
"""

import ctypes
import functools
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

LARGE_PAGE = 2 * 2**20
SLAB_BYTES = 256 * 2**20  # of addresses; what of it is never written to takes no memory
_ALIGNED_BYTES = 64  # as torch aligns
_MADV_HUGEPAGE = 14  # of Linux, on x86-64 and aarch64


class Slabs:
    """Memory for many tensors, one behind the other, in large pages where the system has some.

    Of tensors that are allocated one by one each end lies in small pages: of the weights of a small model a seventh.
    """

    def __init__(self) -> None:
        self._left = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor whose elements are not set. The slab lives as long as any tensor of it."""
        num_bytes = prod(shape) * dtype.itemsize
        if num_bytes > len(self._left):
            self._left = torch.empty(max(num_bytes, SLAB_BYTES), dtype=torch.uint8)
            prefer_large_pages(self._left)
        taken = self._left[:num_bytes]
        self._left = self._left[-(-num_bytes // _ALIGNED_BYTES) * _ALIGNED_BYTES :]
        return taken.view(dtype).view(shape)


def prefer_large_pages(tensor: Tensor) -> None:
    """Ask for large pages for a tensor that has not been written to yet, as far as whole ones lie in it.

    Nothing happens where the system has none: it is as before, and slower.
    """
    if tensor.device.type != "cpu":
        return
    storage = tensor.untyped_storage()
    begin = -(-storage.data_ptr() // LARGE_PAGE) * LARGE_PAGE
    end = (storage.data_ptr() + storage.nbytes()) // LARGE_PAGE * LARGE_PAGE
    if end > begin:
        _madvise()(begin, end - begin, _MADV_HUGEPAGE)


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return function
