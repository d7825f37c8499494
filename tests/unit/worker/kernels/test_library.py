"""Finding and choosing the kernels, their threads, and their build."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from glm_worker.kernels.cpu import build, library
from glm_worker.kernels.cpu.library import KernelsUnavailable, Team, available_isas, is_available, load, why_not
from glm_worker.kernels.cpu.linear import linear


def test_the_best_instruction_set_of_the_cpu_is_chosen() -> None:
    assert load().isa == available_isas()[-1]
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    expected = ["generic", *(["avx2"] if {"avx2", "fma", "f16c"} <= set(flags) else [])]
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        expected += ["avx512", *(["avx512bf16"] if "avx512_bf16" in flags else [])]
    assert available_isas() == expected


@pytest.mark.parametrize("isa", available_isas())
def test_the_environment_chooses_another(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    monkeypatch.setenv(library.VARIABLE, isa)
    assert load().isa == isa


def test_one_that_the_cpu_lacks_is_refused_with_those_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "avx1024")
    assert why_not() == f"GLM_CPU_ISA=avx1024: this CPU has {', '.join(available_isas())}"
    assert not is_available()


@pytest.mark.parametrize(
    ("content", "why"), [(None, "was not built with this package"), (b"no library", "cannot be loaded")]
)
def test_a_library_that_is_missing_or_broken_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "libglm_kernels.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(library, "PATH", path)
    library._handle.cache_clear()
    library._load.cache_clear()
    try:
        with pytest.raises(KernelsUnavailable, match=why):
            load()
    finally:
        monkeypatch.undo()
        library._handle.cache_clear()
        library._load.cache_clear()
        load()


def test_the_library_is_that_of_the_sources() -> None:
    """Or the tests beside this one test something else: `make setup` builds it."""
    assert build.is_built(library.PATH, build.Recipe(build.read_sources(), platform.machine(), sanitized=False).key)


def test_the_same_sources_give_the_same_bytes_and_are_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("team.c", "team.h", "build.py"):
        shutil.copy2(build.FOLDER / name, tmp_path / name)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    first, second = tmp_path / "first" / "lib.so", tmp_path / "second" / "lib.so"
    assert (build.build(first), build.build(first), build.build(second)) == (True, False, True)
    assert first.read_bytes() == second.read_bytes()
    with (tmp_path / "team.c").open("a") as source:
        source.write("/* changed */\n")
    assert build.build(first)


def test_what_the_compiler_says_is_what_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.c").write_text("int f(void) { return nothing; }\n")
    (tmp_path / "build.py").write_text("")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with pytest.raises(build.BuildError, match="use of undeclared identifier 'nothing'"):
        build.build(tmp_path / "lib.so")
    assert not (tmp_path / "lib.so").exists()


def test_a_team_of_more_threads_than_cpus_ends_its_regions() -> None:
    team = Team(4 * len(os.sched_getaffinity(0)))
    x_MK, w_NK = torch.ones(3, 16), torch.ones(200, 16)
    for _ in range(200):
        assert linear(load(), team, x_MK, w_NK).eq(16).all()
    team.close()


def test_threads_of_a_team_end_with_it() -> None:
    before = _num_threads()
    team = Team(3)
    assert _num_threads() == before + 2
    team.close()
    assert _num_threads() == before


def test_a_team_lets_other_threads_of_python_run_meanwhile() -> None:
    """ctypes lets go of Python's lock: a second team computes at the same time."""
    results: list[bool] = []

    def compute() -> None:
        team = Team(2)
        x_MK, w_NK = torch.ones(2, 64), torch.ones(300, 64)
        results.extend(bool(linear(load(), team, x_MK, w_NK).eq(64).all()) for _ in range(50))
        team.close()

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 150


def test_a_team_of_another_process_is_refused() -> None:
    program = """
import os
from glm_worker.kernels.cpu.library import Team
team = Team(2)
if os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    team.pointer
except AssertionError as error:
    raise SystemExit(7 if "threads do not survive a fork" in str(error) else 8)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False, env=_environment())
    assert done.returncode == 7


def test_no_team_has_no_threads() -> None:
    with pytest.raises(KernelsUnavailable, match="no team of 0 threads"):
        Team(0)


def test_a_signal_finds_the_threads_of_python() -> None:
    """Handlers of Python run in its main thread: a thread of a team that took the signal would only delay it."""
    team = Team(2)
    tasks = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    blocked = [_blocked_signals(task) for task in tasks - {threading.get_native_id()}]
    assert any(mask & (1 << 14) for mask in blocked), "SIGTERM is not for a thread of the team"
    team.close()


def _blocked_signals(task: int) -> int:
    status = Path(f"/proc/self/task/{task}/status").read_text()
    return int(status.partition("SigBlk:")[2].split()[0], 16)


def _num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_key_of_a_library_is_inside_it() -> None:
    handle = ctypes.CDLL(str(library.PATH))
    key = (ctypes.c_char * 77).in_dll(handle, "glm_key").value.decode()
    assert key.startswith("glm-kernels-")
