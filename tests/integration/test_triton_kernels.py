"""Triton's kernels on a CPU: its interpreter is chosen before Triton is imported, so they have their own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from long_form import short_of

TESTS = Path(__file__).parents[1]
CHECKS = TESTS / "unit/worker/kernels/interpreted"


@pytest.mark.parametrize("checks", short_of(["check_triton.py", "check_cuda_decoder.py"], 1))
def test_each_triton_kernel_equals_its_twin_in_the_interpreter(checks: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            str(CHECKS / checks),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
