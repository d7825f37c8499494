"""Memory of one prompt is there for the next one."""

import subprocess
import sys

import pytest

COPIES = """
import resource
from glm_edge.kept_memory import keep_freed_memory

prompt = bytes(220_000)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        copies = [prompt + b"x" for _ in range(5)]
        del copies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
can = keep_freed_memory()
faults()
print(usual, faults(), int(can))
"""


def test_pages_of_a_prompt_that_is_over_are_not_asked_for_again() -> None:
    found = subprocess.run([sys.executable, "-c", COPIES], capture_output=True, text=True, check=True, timeout=60)
    usual, kept, can = map(int, found.stdout.split())
    if not can:
        pytest.skip("this C library cannot be told what to keep")
    assert usual > 10_000  # of the 54 pages of each of 1,000 copies
    assert kept < 100
