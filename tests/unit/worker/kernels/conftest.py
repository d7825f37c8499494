"""KERNELS_UNDER_TEST names a library other than the package's: that of `make sanitize`."""

import os
from pathlib import Path

from glm_worker.kernels.cpu import library

if named := os.environ.get("KERNELS_UNDER_TEST"):
    library.PATH = Path(named).resolve()  # type: ignore[misc]
