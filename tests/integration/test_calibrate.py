"""`glm-worker calibrate` on real groups of glm-nano, cut down so that it is over soon."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from glm_worker.engine.calibration.result import Calibration
from integration.pods import ROOT, loopback_address

LIMIT_S = 280.0  # as always here: importing torch has taken 80 s on a busy machine, and it is imported three times
SMALL = ("--max-model-len", "128", "--max-batch-tokens", "64", "--max-num-seqs", "4", "--starts", "1")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glm-") as name:  # short: the path of a socket has 107 bytes at most
        yield Path(name)


def calibrate(folder: Path, *flags: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    output = folder / "calibration.json"
    arguments = ["--model", "builtin://glm-nano", "--host", loopback_address(), "--run-dir", str(folder / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "glm_worker.main", "calibrate", *arguments, *SMALL, *flags, "-o", str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "worker")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done, output


@pytest.mark.long
def test_a_group_of_two_ranks_is_measured_and_leaves_nothing(folder: Path) -> None:
    done, output = calibrate(folder, "--ranks-per-pod", "2")
    assert done.returncode == 0, done.stderr[-4000:]
    found = msgspec.json.decode(output.read_bytes(), type=Calibration)
    assert (found.model, found.device, found.ranks) == ("builtin://glm-nano", "cpu", 2)
    assert (found.max_batch_tokens, found.max_num_seqs, found.max_model_len, found.block_size) == (64, 4, 128, 16)
    assert found.kv_tokens == 4 * 128
    assert 0 < found.prefill.seconds(64, 64 * 32) < 10
    assert 0 < found.decode.seconds(4, 400) < 10
    assert 0 <= found.overhead_s < 10
    assert len(found.cold_start_s) == 1
    assert found.cold_start_s[0] > 0
    assert found.measured.prefill
    assert found.measured.decode
    alone_s, served_s = found.measured.backlog_s
    assert 0 < alone_s < 60
    assert all(0 < seconds < 60 for seconds in served_s)
    assert found.decode.per_sequence_s >= found.measured.served_token_s >= 0
    assert list((folder / "run").iterdir()) == []
    assert not [process for process in psutil.process_iter(["environ"]) if is_ours(process, folder)]


@pytest.mark.long
def test_a_group_that_cannot_start_leaves_no_file_and_says_so(folder: Path) -> None:
    done, output = calibrate(folder, "--kv-cache-bytes", "16")
    assert done.returncode == 70, done.stderr[-4000:]
    assert "before it was measured" in done.stderr
    assert "GLM_KV_CACHE_BYTES=16 is less than one block" in done.stdout + done.stderr
    assert not output.exists()


def test_a_model_that_is_not_there_is_said_at_once(folder: Path) -> None:
    done, output = calibrate(folder, "--model", str(folder / "nothing"))
    assert done.returncode == 78, done.stderr[-4000:]
    assert str(folder / "nothing") in done.stderr
    assert not output.exists()


def is_ours(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in ((process.info["environ"] or {}).get("GLM_RUN_DIR") or "")
