"""Large pages for weights: whether they come."""

import re
from pathlib import Path

import pytest
import torch

from glm_worker.kernels.cpu.large_pages import LARGE_PAGE, SLAB_BYTES, Slabs, prefer_large_pages
from glm_worker.model.layers import Placement

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HAS_LARGE_PAGES = ENABLED.is_file() and "[never]" not in ENABLED.read_text()


def large_bytes(begin: int, end: int) -> int:
    """Return how much of the memory from begin to end is in large pages, as the mappings that touch it say."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) < end and int(found[2], 16) > begin
        elif inside and line.startswith("AnonHugePages:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not HAS_LARGE_PAGES, reason="the kernel gives no large pages")
def test_weights_of_a_rank_on_a_cpu_lie_in_large_pages() -> None:
    weight = Placement(torch.device("cpu"), torch.float32).empty(64, 2**18)  # 64 MiB
    weight.fill_(1.0)
    begin = weight.data_ptr()
    assert large_bytes(begin, begin + 64 * 2**20) >= 16 * LARGE_PAGE, "most, unless memory is in pieces"


def test_a_tensor_without_a_whole_large_page_is_left_alone() -> None:
    tensor = torch.zeros(1000)
    prefer_large_pages(tensor)
    prefer_large_pages(torch.empty(0))
    assert tensor.eq(0).all()


@pytest.mark.skipif(not HAS_LARGE_PAGES, reason="the kernel gives no large pages")
def test_weights_that_are_not_whole_large_pages_share_them() -> None:
    place = Placement(torch.device("cpu"), torch.bfloat16)
    weights = [place.empty(3 * 2**19 + 100) for _ in range(24)]  # 3 MiB each, and a bit
    for weight in weights:
        weight.fill_(1.0)
    begin, end = weights[0].data_ptr(), weights[-1].data_ptr() + weights[-1].nbytes
    assert large_bytes(begin, end) >= 0.9 * (end - begin), "of tensors by themselves, two thirds at most"


def test_tensors_of_slabs_are_apart_and_aligned_whatever_their_sizes_and_types() -> None:
    slabs = Slabs()
    shapes = [(3, 5), (0, 7), (1,), (2, 3, 11), (), (127,)]
    tensors = [slabs.empty(shape, dtype) for shape in shapes for dtype in (torch.float32, torch.bfloat16)]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    for number, tensor in enumerate(tensors):
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % 64 == 0
        assert tensor.eq(number).all()
    assert [tensor.shape for tensor in tensors[::2]] == [torch.Size(shape) for shape in shapes]


def test_a_tensor_that_is_larger_than_a_slab_has_memory_of_its_own() -> None:
    slabs = Slabs()
    small = slabs.empty((10,), torch.float32).fill_(1.0)
    large = slabs.empty((SLAB_BYTES + 64,), torch.uint8)  # never written to: it takes no memory
    after = slabs.empty((10,), torch.float32).fill_(2.0)
    assert large.untyped_storage().nbytes() == SLAB_BYTES + 64
    assert small.eq(1.0).all()
    assert after.eq(2.0).all()
