"""Run a stage's command, unless it passed on this machine with the same files: again it would tell nothing new.

python scripts/once.py STAGE FILE|FOLDER... -- COMMAND...

It is for a stage that depends on those files, the locked packages and the processor alone: on no clock and on no
neighbour. GLM_TEST_AGAIN=1 runs it anyway. A run that was left out is told, with the time of the one that passed, also
in the file that STAGES_LEFT_OUT names, for the summary of `make test`.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "locks" / "dev.txt"
SUFFIXES = (".py", ".c", ".h", ".txt")
SELF = Path(__file__).resolve()


def sources(named: Iterable[Path]) -> Iterator[Path]:
    """Yield these files, and those in these folders that a test can depend on.

    Raises:
        FileNotFoundError: One is neither. It would count as unchanged for ever.
    """
    for path in named:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES)
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"{path} is no file and no folder")


def digest_of(files: Iterable[Path], command: Sequence[str], processor: str) -> str:
    """Return what is another one as soon as a file, the command, Python or the processor is."""
    found = hashlib.sha256(repr((list(command), sys.version, processor)).encode())
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def this_processor() -> str:
    """Return what it is and can do: which instructions are tested depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def cache() -> Path:
    """Return the folder of what passed: outside of the checkout, for a fresh clone has the files of the last one."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "glm-operator" / "passed"


def main(arguments: Sequence[str]) -> int:
    cut = arguments.index("--")
    stage, *names = arguments[:cut]
    command = arguments[cut + 1 :]
    named = [SELF, LOCK, *map(Path, names)]
    told_pytest = os.environ.get("PYTEST_ADDOPTS", "")

    def digest() -> str:
        return digest_of(sources(named), [*command, told_pytest], this_processor())

    before = digest()
    passed = cache() / f"{stage}-{before}"
    if passed.exists() and os.environ.get("GLM_TEST_AGAIN") != "1":
        told = f"{stage}: passed here with these files on {passed.read_text().strip()}; GLM_TEST_AGAIN=1 runs it again"
        print(told)
        if notes := os.environ.get("STAGES_LEFT_OUT"):
            with Path(notes).open("a", encoding="utf-8") as summary:
                print(told, file=summary)
        return 0
    status = subprocess.run(command, check=False).returncode
    if status == 0 and digest() == before:  # or somebody has edited what was tested meanwhile
        passed.parent.mkdir(parents=True, exist_ok=True)
        for older in passed.parent.glob(f"{stage}-*"):
            older.unlink(missing_ok=True)
        passed.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
