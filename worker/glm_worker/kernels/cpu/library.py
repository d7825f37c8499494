"""The kernels' shared library: finding it, choosing the best instruction set that the CPU has, and teams of threads.

Functions are called by ctypes, which lets go of Python's lock meanwhile. GLM_CPU_ISA chooses another instruction set,
for tests and for comparing: with one that the CPU lacks torch computes, as without a library, and a line says why.

Only a library of the very sources that lie beside this file is loaded: another one's structs may be laid out otherwise,
and would be read as these. So an edited source, or a checkout that moved on, leaves all to torch until `make setup`
has built it anew; the line names that. Sources travel with the library, in the wheel and in the image.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from glm_worker.kernels.cpu.build import read_sources, sources_key

PATH: Final = Path(__file__).resolve().parent / "libglm_kernels.so"
ISAS: Final = ("generic", "avx2", "avx512", "avx512bf16")  # as glm_cpu_level counts them
VARIABLE: Final = "GLM_CPU_ISA"
F32, BF16 = 0, 1

_POINTERS: Final = (ctypes.c_void_p, ctypes.c_void_p)
_SHARED: Final = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)  # memory, the number of ranks, and a rank
_ELF: Final = struct.Struct("<6s26xQQ6xHHHH2x")  # a file's magic, where segments and sections are, how large, how many
_SEGMENT: Final = struct.Struct("<8xQ16xQ16x")  # where in the file it is, and how large


class KernelsUnavailable(Exception):
    """The library cannot serve here; the message says why."""


class Library:
    """The functions of one instruction set."""

    def __init__(self, handle: ctypes.CDLL, isa: str) -> None:
        self.isa = isa
        self._handle = handle

    def function(self, name: str, argtypes: Sequence[Any], restype: Any = None) -> Any:
        """Return a kernel by its name without the instruction set: ctypes has no type for a function of any kind.

        Raises KernelsUnavailable where the library lacks it.
        """
        found = _symbol(self._handle, f"{name}_{self.isa}")
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


def of_any_isa() -> ctypes.CDLL:
    """Return the library for what needs no instruction set: exchanges between ranks. Raises KernelsUnavailable."""
    return _handle()


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
        _refuse_unlike(PATH.read_bytes())
        handle = ctypes.CDLL(str(PATH))
    except OSError as error:
        raise KernelsUnavailable(f"{PATH.name} cannot be loaded: {error}") from error
    for name, argtypes, restype in (
        ("glm_cpu_level", (), ctypes.c_int),
        ("glm_team_new", (ctypes.c_int,), ctypes.c_void_p),
        ("glm_team_free", (ctypes.c_void_p,), None),
        ("glm_exchange_bytes", (ctypes.c_int, ctypes.c_int64), ctypes.c_int64),
        ("glm_exchange_new", (*_SHARED, ctypes.c_int64, ctypes.POINTER(ctypes.c_int)), ctypes.c_void_p),
        ("glm_exchange_free", (ctypes.c_void_p,), None),
        ("glm_exchange_sum", (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64), ctypes.c_int),
        ("glm_exchange_join", (*_POINTERS, *[ctypes.c_int64] * 2, ctypes.c_void_p), ctypes.c_int),
    ):
        found = _symbol(handle, name)
        found.argtypes, found.restype = argtypes, restype
    return handle


def _refuse_unlike(content: bytes) -> None:
    """Raise KernelsUnavailable for a library that is not whole, or not of the sources beside this file.

    Before it is loaded: to look beyond the end of a file that is mapped ends the process.
    """
    if not _is_whole(content):
        raise KernelsUnavailable(f"{PATH.name} cannot be loaded: it is no whole library")
    if sources_key(read_sources()).encode() not in content:
        raise KernelsUnavailable(
            f"{PATH.name} was built of other sources than those beside it (`make setup` builds it anew)"
        )


def _is_whole(content: bytes) -> bool:
    """Return whether a file of ELF, 64 bits, little endian, has all that its headers speak of."""
    try:
        magic, segments_at, sections_at, segment_bytes, num_segments, section_bytes, num_sections = _ELF.unpack_from(
            content
        )
        segments = [_SEGMENT.unpack_from(content, segments_at + i * segment_bytes) for i in range(num_segments)]
    except struct.error:
        return False
    ends = [sections_at + section_bytes * num_sections, *(offset + size for offset, size in segments)]
    return bool(magic == b"\x7fELF\x02\x01" and max(ends) <= len(content))


def _symbol(handle: ctypes.CDLL, name: str) -> Any:
    try:
        return getattr(handle, name)
    except AttributeError as error:
        raise KernelsUnavailable(f"{PATH.name} has no {name}; it was built of other sources") from error
