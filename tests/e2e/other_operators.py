"""Operators of other versions, as programs of the cluster: while one runs, the release's own has no pod."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from glm_cluster import Cluster
from glm_cluster.processes import Processes


@contextlib.contextmanager
def running(program: ModuleType, cluster: Cluster, worker_image: str, *flags: str) -> Iterator[None]:
    """Run a program that takes the flags of `glm-operator`, until the block is left."""
    processes, name = Processes(cluster.paths.pids, cluster.paths.logs), "other-operator"
    processes.stop(name)  # that of a story that was killed
    assert program.__file__ is not None
    ours = ("--kubeconfig", cluster.environment()["KUBECONFIG"], "--worker-image", worker_image, *flags)
    processes.start(name, sys.executable, Path(program.__file__), *ours, "--management-port", "18080")
    try:
        yield
    finally:
        processes.stop(name)
