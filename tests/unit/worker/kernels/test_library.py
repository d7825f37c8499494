"""Finding and choosing the kernels, their threads, and their build."""

import _ctypes
import ctypes
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from glm_worker.kernels.cpu import build, library
from glm_worker.kernels.cpu.decoder import DecoderKernels
from glm_worker.kernels.cpu.library import KernelsUnavailable, Team, available_isas, is_available, load, why_not
from glm_worker.kernels.cpu.linear import linear
from glm_worker.kernels.cpu.sample import sample_kernel

OURS = library.PATH.read_bytes()


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


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], object]]:
    """Have a file of these bytes in the library's place until the test ends."""
    path = tmp_path / "libglm_kernels.so"
    monkeypatch.setattr(library, "PATH", path)

    def forget() -> None:
        library._handle.cache_clear()
        library._load.cache_clear()

    forget()
    yield path.write_bytes
    monkeypatch.undo()
    forget()
    load()


@pytest.mark.usefixtures("put")
def test_a_library_that_is_missing_is_said_to_be() -> None:
    assert "was not built with this package" in why_not()


def test_a_file_that_is_no_library_is_not_loaded(put: Callable[[bytes], object]) -> None:
    put(b"no library")
    assert "cannot be loaded" in why_not()


@pytest.mark.parametrize("num_bytes", [0, 63, 64, 200, len(OURS) // 2, len(OURS) - 1])
def test_a_library_that_is_cut_short_is_not_loaded(put: Callable[[bytes], object], num_bytes: int) -> None:
    """The loader maps what the headers speak of, and whoever reads beyond the end of the file is killed."""
    put(OURS[:num_bytes])
    assert why_not() == "libglm_kernels.so cannot be loaded: it is no whole library"


def test_a_library_of_other_sources_is_not_loaded(put: Callable[[bytes], object]) -> None:
    key = build.sources_key(build.read_sources()).encode()
    put(OURS.replace(key, key[:-2] + b"x-"))
    assert why_not() == (
        "libglm_kernels.so was built of other sources than those beside it (`make setup` builds it anew)"
    )


def test_a_library_that_is_not_ours_is_not_loaded(put: Callable[[bytes], object]) -> None:
    put(Path(_ctypes.__file__).read_bytes())
    assert "was built of other sources" in why_not()


def test_a_source_that_is_edited_and_not_built_leaves_all_to_torch(
    put: Callable[[bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(OURS)
    assert is_available()
    library._handle.cache_clear()
    library._load.cache_clear()
    for path in [*build.FOLDER.glob("*.[ch]"), build.FOLDER / "build.py"]:
        shutil.copy2(path, tmp_path)
    with (tmp_path / "sample.c").open("a") as source:
        source.write("/* changed */\n")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert "was built of other sources" in why_not()
    assert sample_kernel(1) is None


@pytest.mark.parametrize("name", ["glm_cpu_level", "glm_team_new"])
def test_a_library_without_its_own_functions_is_said_to_lack_them(put: Callable[[bytes], object], name: str) -> None:
    put(_renamed(OURS, name))
    assert why_not() == f"libglm_kernels.so has no {name}; it was built of other sources"


def test_one_kernel_that_is_missing_leaves_its_work_to_torch(put: Callable[[bytes], object]) -> None:
    put(_renamed(OURS, *(f"glm_{kernel}_{isa}" for kernel in ("sample", "model_run") for isa in library.ISAS)))
    assert sample_kernel(1) is None
    team = Team(1)
    with pytest.raises(KernelsUnavailable, match="has no glm_model_run_"):
        DecoderKernels(load(), team)
    team.close()


def _renamed(content: bytes, *names: str) -> bytes:
    for name in names:
        content = content.replace(f"\0{name}\0".encode(), f"\0{name[:-1]}#\0".encode())
    return content


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
    key = (ctypes.c_char * 142).in_dll(handle, "glm_key").value.decode()
    assert key == build.Recipe(build.read_sources(), platform.machine(), sanitized=False).key
