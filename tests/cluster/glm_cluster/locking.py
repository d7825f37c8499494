"""One command at a time changes the cluster or its cache."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from glm_cluster.paths import Paths
from glm_cluster.progress import step


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Hold the machine's lock; when another process has it, say so and wait. The kernel frees it with its holder."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for another glm_cluster command to end"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
