"""The kernels' shared library: finding it, choosing the best instruction set that the CPU has, and teams of threads.

Functions are called by ctypes, which lets go of Python's lock meanwhile. GLM_CPU_ISA chooses another instruction set,
for tests and for comparing: naming one that the CPU lacks is an error, never a crash later.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).resolve().parent / "libglm_kernels.so"
ISAS: Final = ("generic", "avx2", "avx512", "avx512bf16")  # as glm_cpu_level counts them
VARIABLE: Final = "GLM_CPU_ISA"
F32, BF16 = 0, 1


class KernelsUnavailable(Exception):
    """The library cannot serve here; the message says why."""


class Library:
    """The functions of one instruction set."""

    def __init__(self, handle: ctypes.CDLL, isa: str) -> None:
        self.isa = isa
        self._handle = handle

    def function(self, name: str, argtypes: Sequence[Any], restype: Any = None) -> Any:
        """Return a kernel by its name without the instruction set: ctypes has no type for a function of any kind."""
        found = getattr(self._handle, f"{name}_{self.isa}")
        found.argtypes, found.restype = argtypes, restype
        return found

    @property
    def has_bf16_products(self) -> bool:
        """Whether products of bf16 are the CPU's own, and so faster than those of fp32."""
        return self.isa == "avx512bf16"


class Team:
    """Threads that run kernels together; the caller is one of them. One kernel at a time, from one thread."""

    def __init__(self, num_threads: int) -> None:
        """Start num_threads - 1 threads. Raises KernelsUnavailable where there can be no more."""
        handle = _handle()
        self.num_threads = num_threads
        self._pid = os.getpid()
        self._free = handle.glm_team_free
        self._pointer = handle.glm_team_new(num_threads)
        if not self._pointer:
            raise KernelsUnavailable(f"no team of {num_threads} threads can be started: threads or memory are lacking")

    @property
    def pointer(self) -> int:
        """The first argument of every kernel."""
        assert self._pointer, "the team has been closed"
        assert self._pid == os.getpid(), "threads do not survive a fork: make a team in the process that uses it"
        return int(self._pointer)

    def close(self) -> None:
        """End its threads."""
        if self._pointer and self._pid == os.getpid():
            self._free(self._pointer)
        self._pointer = None

    def __del__(self) -> None:
        self.close()


def load(isa: str = "") -> Library:
    """Return the kernels of an instruction set; empty: of the one GLM_CPU_ISA names, or the best that the CPU has.

    Raises KernelsUnavailable.
    """
    return _load(isa or os.environ.get(VARIABLE, ""))


def available_isas() -> list[str]:
    """Return the instruction sets that can run here, the best last. Raises KernelsUnavailable."""
    return list(ISAS[: _handle().glm_cpu_level() + 1])


def why_not() -> str:
    """Return why the kernels cannot serve here; empty where they can."""
    try:
        load()
    except KernelsUnavailable as error:
        return str(error)
    return ""


def is_available() -> bool:
    return not why_not()


@cache
def _load(isa: str) -> Library:
    allowed = available_isas()
    if isa and isa not in allowed:
        raise KernelsUnavailable(f"{VARIABLE}={isa}: this CPU has {', '.join(allowed)}")
    return Library(_handle(), isa or allowed[-1])


@cache
def _handle() -> ctypes.CDLL:
    if not PATH.is_file():
        raise KernelsUnavailable(f"{PATH.name} was not built with this package (kernels/cpu/build.py makes it)")
    try:
        handle = ctypes.CDLL(str(PATH))
    except OSError as error:
        raise KernelsUnavailable(f"{PATH.name} cannot be loaded: {error}") from error
    handle.glm_cpu_level.argtypes, handle.glm_cpu_level.restype = (), ctypes.c_int
    handle.glm_team_new.argtypes, handle.glm_team_new.restype = (ctypes.c_int,), ctypes.c_void_p
    handle.glm_team_free.argtypes, handle.glm_team_free.restype = (ctypes.c_void_p,), None
    return handle
