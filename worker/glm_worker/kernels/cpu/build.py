"""Build the kernels' shared library with zig's C compiler, a package like any other: nothing of the machine is needed.

Each source is compiled once for each instruction set; which of them runs is chosen when the library is loaded. The same
sources give the same bytes. Needs the standard library and `ziglang` only: setup.py, the Dockerfile and the Makefile
run this file as it lies here. A library that was built of the same sources is left alone.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libglm_kernels.so"
GLIBC = "2.28"
COMMON = frozenset({"exchange.c", "team.c"})  # sources that know no instruction set
FLAGS = (
    *("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-g0"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-pass-failed", "-Wno-psabi"),
)
# Not those that look at every address: memory that is not ours is closed (scripts/guarding_malloc.c), and they would
# make the compiler take minutes for what is unrolled. Tiles are small for the same reason.
SANITIZE = (
    *("-fsanitize=undefined", "-fno-sanitize=null,pointer-overflow,object-size,alignment"),
    *("-fsanitize-trap=undefined", "-O1", "-DGLM_SMALL_TILES"),
)
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "generic": ("-mcpu=x86_64",),
        "avx2": ("-mcpu=x86_64_v3",),
        "avx512": ("-mcpu=x86_64_v4",),
        "avx512bf16": ("-mcpu=x86_64_v4", "-mavx512bf16"),
    },
    "aarch64": {"generic": ()},
}

_MOST_WORDS = 4000  # characters of what the compiler says


class BuildError(Exception):
    """The compiler is missing, does not know this machine, or refused a source; its words are in the message."""


def read_sources() -> dict[str, bytes]:
    """Return the sources by name, as they are now: what is compiled is what the key speaks of."""
    return {path.name: path.read_bytes() for path in sorted([*FOLDER.glob("*.[ch]"), FOLDER / "build.py"])}


def sources_key(sources: Mapping[str, bytes]) -> str:
    """Return how the key of every library made of these C sources begins, whatever compiled it.

    It is what the loader compares (library.py): where it serves there is no compiler to ask for its version.
    """
    digest = hashlib.sha256()
    for name, content in sources.items():
        if not name.endswith(".py"):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"glm-kernels-{digest.hexdigest()}-"


@dataclass(frozen=True)
class Recipe:
    """What is built, and everything that decides its bytes."""

    sources: Mapping[str, bytes]
    machine: str  # as platform.machine() has it
    sanitized: bool  # whether undefined behaviour ends the process

    @property
    def key(self) -> str:
        """Return what the library of these sources carries: a hash of the sources in C, and one of how it is made."""
        how = f"{self.machine} {self.sanitized} {version('ziglang')}\0".encode() + self.sources["build.py"]
        return sources_key(self.sources) + hashlib.sha256(how).hexdigest()

    @property
    def flags(self) -> tuple[str, ...]:
        target = f"-target {self.machine}-linux-gnu.{GLIBC}".split()
        return (*target, *FLAGS, *(SANITIZE if self.sanitized else ("-fno-sanitize=undefined",)))

    def compilations(self) -> Iterable[tuple[str, str, tuple[str, ...]]]:
        """Return (source, name of the object, flags)."""
        for source in (name for name in self.sources if name.endswith(".c")):
            stem = source.removesuffix(".c")
            if source in COMMON:
                yield source, f"{stem}.o", (f'-DGLM_KEY="{self.key}"',)
                continue
            for isa, flags in VARIANTS[self.machine].items():
                yield source, f"{stem}_{isa}.o", (f"-DGLM_ISA={isa}", *flags)


def build(library: Path = LIBRARY, *, sanitized: bool = False) -> bool:
    """Make the library out of the sources beside this file and return whether that was necessary.

    Raises BuildError. Whoever loads it meanwhile sees the old one or the new one.
    """
    machine = platform.machine()
    if machine not in VARIANTS:
        raise BuildError(f"no kernels for {machine}; there are some for {', '.join(VARIANTS)}")
    recipe = Recipe(read_sources(), machine, sanitized)
    if is_built(library, recipe.key):
        return False
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".kernels-") as scratch:
        folder = Path(scratch)
        for name, content in recipe.sources.items():
            (folder / name).write_bytes(content)
        jobs = list(recipe.compilations())
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(lambda job: _zig([*recipe.flags, *job[2], "-c", job[0], "-o", job[1]], folder), jobs))
        objects = [job[1] for job in jobs]
        _zig([*recipe.flags, "-shared", "-s", "-Wl,--build-id=none", "-lpthread", *objects, "-o", "made.so"], folder)
        (folder / "made.so").replace(library)
    return True


def is_built(library: Path, key: str) -> bool:
    """Return whether the library carries the key."""
    return library.is_file() and key.encode() in library.read_bytes()


def _zig(arguments: Sequence[str], folder: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()[:_MOST_WORDS]}")


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description="Build the kernels of the CPU.")
    parser.add_argument("--out", type=Path, default=LIBRARY, help="the library (default: beside the sources)")
    parser.add_argument("--sanitized", action="store_true", help="let undefined behaviour end the process")
    arguments = parser.parse_args()
    try:
        made = build(arguments.out.resolve(), sanitized=arguments.sanitized)
    except BuildError as error:
        sys.exit(f"kernels: {error}")
    sys.stderr.write(f"kernels: {arguments.out} {'built' if made else 'is of these sources already'}\n")


if __name__ == "__main__":
    main()
