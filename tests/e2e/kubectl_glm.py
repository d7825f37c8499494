"""`kubectl glm`, as a person with the package installed types it."""

import os
import subprocess
import sys
from pathlib import Path

from e2e.target import Target


def kubectl_glm(target: Target, *arguments: str, status: int = 0) -> str:
    """Run `kubectl glm …` as a person with the package installed does; return what it says."""
    programs = Path(sys.executable).parent
    environ = {**target.environ, "PATH": f"{programs}:{target.environ.get('PATH', os.environ['PATH'])}"}
    command = ["kubectl", "glm", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}:\n{said}"
    return said
