"""`kubectl glm`, as a person with the package installed types it."""

import os
import subprocess
import sys
from pathlib import Path

from e2e.target import Target


def kubectl_glm(target: Target, *arguments: str, status: int = 0) -> str:
    """Run `kubectl glm …` as a person with the package installed does; return what it says."""
    done = _run(target, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"kubectl glm {' '.join(arguments)} ended with {done.returncode}:\n{said}"
    return said


def printed(target: Target, *arguments: str) -> str:
    """Return what `kubectl glm …` prints for a program to read."""
    done = _run(target, *arguments)
    assert done.returncode == 0, f"kubectl glm {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout.strip()


def _run(target: Target, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    environ = {**target.environ, "PATH": f"{programs}:{target.environ.get('PATH', os.environ['PATH'])}"}
    command = ["kubectl", "glm", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
