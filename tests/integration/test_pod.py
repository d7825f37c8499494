"""A pod's own part of a generation, without the roles around it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 120.0
TESTS = Path(__file__).parents[1]


def test_a_zygote_that_dies_as_its_generation_ends_is_told_once_and_under_that_generation() -> None:
    run_dir = tempfile.mkdtemp(prefix="glm-")  # short: the path of a socket has 107 bytes at most
    settings = {"GLM_MODEL": "m", "GLM_RUN_DIR": run_dir, "GLM_BACKOFF_BASE_S": "0.01", "PYTHONPATH": str(TESTS)}
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "integration.zygote_dies", str(os.getpid())],
            env=os.environ | settings, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(run_dir)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    (failure,) = said["failures"]
    assert failure.startswith("the zygote (process ")
    assert said["told"] == [["g-1", failure]]
