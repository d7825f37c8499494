"""KERNELS_UNDER_TEST names another library than the package's: `make sanitize` tests one that undefined behaviour ends."""

import os
from pathlib import Path

from glm_worker.kernels.cpu import library

if named := os.environ.get("KERNELS_UNDER_TEST"):
    library.PATH = Path(named).resolve()  # type: ignore[misc]
