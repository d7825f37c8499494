"""Run the tests of the kernels in C where undefined behaviour, and a step outside of a buffer, end the process.

The library is built with clang's sanitizer of undefined behaviour. zig has no sanitizer of addresses: instead every
tensor and every scratch ends at a page that nobody may touch (guarding_malloc.c, preloaded). A test that dies names
itself: pytest's faulthandler writes where it was. First it is seen that faults are
found.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "sanitized"
SOURCES = ROOT / "worker" / "glm_worker" / "kernels" / "cpu"
TESTS = ROOT / "tests" / "unit" / "worker" / "kernels"
OTHERS = ("test_library.py", "test_large_pages.py")  # what is not C, or not itself here
KEPT = "generic or avx512bf16 or not avx"  # the least and the most of the instruction sets: half of the time
FAULTS = ("overrun", "overflow", "use after free")


def run(*command: str | Path, **environment: str) -> int:
    return subprocess.run(list(map(str, command)), cwd=ROOT, env={**os.environ, **environment}, check=False).returncode


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    library, guard = FOLDER / "libglm_kernels.so", FOLDER / "guarding_malloc.so"
    if failed := run(sys.executable, SOURCES / "build.py", "--sanitized", "--out", library):
        sys.exit(failed)
    zig = (sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-fno-sanitize=undefined")
    if failed := run(*zig, ROOT / "scripts" / "guarding_malloc.c", "-ldl", "-o", guard):
        sys.exit(failed)
    watched = {"LD_PRELOAD": str(guard), "KERNELS_UNDER_TEST": str(library)}
    for fault in FAULTS:
        if run(sys.executable, ROOT / "scripts" / "sanitizer_check.py", fault, library, **watched) >= 0:
            sys.exit(f"this fault was not noticed, so the tests would prove nothing: {fault}")
    files = [path for path in sorted(TESTS.glob("test_*.py")) if path.name not in OTHERS]
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    # Tiles of their full size are only in the library that is served from: it has to stay inside of its buffers, too
    whole_tiles = run(*tests, TESTS / "test_linear.py", LD_PRELOAD=str(guard))
    sys.exit(run(*tests, "-k", KEPT, *files, **watched) or whole_tiles)


if __name__ == "__main__":
    main()
