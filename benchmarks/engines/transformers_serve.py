"""What `transformers serve` needs beside the packages of this environment: a folder of its own, from its lock."""

import subprocess
import sys
from pathlib import Path

from engines.llama_cpp import CACHE, PeerMissing

LOCK = Path(__file__).resolve().parents[2] / "locks" / "transformers-serve.txt"


def additions() -> Path:
    """Return the folder, for PYTHONPATH. Raises PeerMissing when it cannot be filled."""
    folder, lock = CACHE / "transformers-serve", CACHE / "transformers-serve.txt"
    text = LOCK.read_text(encoding="utf-8")
    if not lock.is_file() or lock.read_text(encoding="utf-8") != text:
        uv = str(Path(sys.executable).with_name("uv"))
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", sys.executable]
        done = subprocess.run(
            [*install, "--target", str(folder), "-r", str(LOCK)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PeerMissing(f"what it needs cannot be installed: {done.stderr.strip()[-500:]}")
        lock.write_text(text, encoding="utf-8")
    return folder
