"""llama.cpp: built once from the source package of llama-cpp-python that the lock names, into a cache of its own.

Everything it needs but a C++ compiler comes from packages, in an environment that nothing else uses.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from engines.work import Speed, Work

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "locks" / "engine-peers.txt"
CACHE = Path("~/.cache/glm-operator/engine-peers").expanduser()
SOURCE = "llama-cpp-python"
PROGRAMS = ("llama-batched-bench", "llama-bench", "llama-server")
OPTIONS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF"),
    *("-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF"),
)


class PeerMissing(Exception):
    """The peer cannot be built or run here; the message says why."""


@dataclass(frozen=True)
class LlamaCpp:
    """Its programs, and the environment whose Python has `gguf`."""

    version: str
    programs: Path
    python: Path

    @classmethod
    def get(cls, jobs: int) -> "LlamaCpp":
        """Return it, built if it was not: 3 to 8 minutes. Raises PeerMissing."""
        name, version = _locked_source()
        folder = CACHE / f"{name.replace('-', '_')}-{version}"
        built = cls(version, folder / "build" / "bin", CACHE / "venv" / "bin" / "python")
        if not all((built.programs / program).is_file() for program in PROGRAMS) or not built.python.is_file():
            if shutil.which("c++") is None:
                raise PeerMissing(
                    "llama.cpp is built from source, and there is no C++ compiler (`c++`) on this machine"
                )
            _say(f"building llama.cpp of {name} {version} into {folder}, 3 to 8 minutes")
            _make_environment(built.python)
            _build(_unpacked(folder, name, version), folder / "build", built.python.parent, jobs)
        return built

    def gguf(self, model: Path, dtype: str) -> Path:
        """Return the file with the model's weights, written if it was not since the model was."""
        out = CACHE / f"{model.name}-{dtype}.gguf"
        writer = Path(__file__).with_name("write_gguf.py")
        newest = max(path.stat().st_mtime for path in (model / "model.safetensors", writer))
        if not out.is_file() or out.stat().st_mtime < newest:
            _run([str(self.python), str(writer), str(model), str(out), dtype])
        return out

    def measure(self, file: Path, threads: int, works: list[Work]) -> list[Speed]:
        """Run works of one shape of prompt and answer, each batch after the other, as llama-batched-bench does."""
        shapes = {(work.num_prompt, work.num_answer) for work in works}
        assert len(shapes) == 1, "one shape a run"
        num_prompt, num_answer = shapes.pop()
        batches = [work.batch for work in works]
        context = max(batches) * (num_prompt + num_answer)
        command = [str(self.programs / "llama-batched-bench"), "-m", str(file), "-c", str(max(context, 2048))]
        command += ["-t", str(threads), "-tb", str(threads), "-b", "2048", "-ub", "512"]
        command += ["-npp", str(num_prompt), "-ntg", str(num_answer), "-npl", ",".join(map(str, batches))]
        rows = _rows(_run(command))
        if len(rows) != len(works):
            raise PeerMissing(f"llama-batched-bench told {len(rows)} speeds of {len(works)}: {command}")
        return [Speed(work, *rows[work.batch]) for work in works]


def _rows(table: str) -> dict[int, tuple[float, float]]:
    """Return prefill and decode in tokens/s by batch: columns PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S."""
    found = re.findall(r"^\|" + r"\s*([\d.]+)\s*\|" * 10, table, re.MULTILINE)
    return {int(columns[2]): (float(columns[5]), float(columns[7])) for columns in found}


def _locked_source() -> tuple[str, str]:
    found = re.search(rf"^{SOURCE}==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{LOCK} does not name {SOURCE}"
    return SOURCE, found[1]


def _blocks_of_lock() -> tuple[str, str]:
    """Return the lock without the source package, whose installing would build it, and that package alone."""
    blocks = re.split(r"(?m)^(?=\S)", LOCK.read_text(encoding="utf-8"))
    of_source = [block for block in blocks if block.startswith(f"{SOURCE}==")]
    return "".join(block for block in blocks if block not in of_source), "".join(of_source)


def _make_environment(python: Path) -> None:
    tools, _ = _blocks_of_lock()
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = CACHE / "tools.txt"
    lock.write_text(tools, encoding="utf-8")
    uv = str(Path(sys.executable).with_name("uv"))
    environment = str(python.parents[1])
    _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, environment])
    _run([uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)])


def _unpacked(folder: Path, name: str, version: str) -> Path:
    """Fetch and unpack the source package, only llama.cpp of it, and return where it lies."""
    _, source = _blocks_of_lock()
    archive = CACHE / f"{name.replace('-', '_')}-{version}.tar.gz"
    if not archive.is_file():
        lock = CACHE / "source.txt"
        lock.write_text(source, encoding="utf-8")
        python = str(CACHE / "venv" / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "download", "--quiet", "--no-deps", "--no-binary"]
        _run([*pip, ":all:", "--no-build-isolation", "--require-hashes", "-r", str(lock), "-d", str(CACHE)])
    inside = folder / "vendor" / "llama.cpp"
    if not (inside / "CMakeLists.txt").is_file():
        with tarfile.open(archive) as packed:
            wanted = [member for member in packed.getmembers() if "/vendor/llama.cpp/" in member.name]
            packed.extractall(CACHE, wanted, filter="data")
    return inside


def _build(source: Path, build: Path, programs: Path, jobs: int) -> None:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    _run(["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *OPTIONS], environment)
    _run(["cmake", "--build", str(build), "-j", str(jobs), "--target", *PROGRAMS], environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what it printed. Raises PeerMissing with the last lines of an error."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise PeerMissing(f"`{' '.join(command)}` ended with status {done.returncode}:\n{tail}")
    return done.stdout + done.stderr


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)
