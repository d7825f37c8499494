"""Large pages for weights: whether they come."""

import re
from pathlib import Path

import pytest
import torch

from glm_worker.kernels.cpu.large_pages import LARGE_PAGE, prefer_large_pages
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
