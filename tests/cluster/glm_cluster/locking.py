"""Locks between processes: files that the kernel frees with whoever holds them."""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths
from glm_cluster.progress import step


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Hold the machine's lock: one command at a time changes the cluster or its cache."""
    with held(paths.lock, "another glm_cluster command"):
        yield


@contextmanager
def held(lock: Path, holder: str) -> Iterator[None]:
    """Hold a lock; when another process has it, say so and wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"waiting for {holder} to end"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held_first(locks: Iterable[Path]) -> Iterator[Path]:
    """Hold the first lock that nobody has, and yield which one; ClusterError when each is taken."""
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield lock
            return
    raise ClusterError("every place is taken by other processes; wait until one of them ends")
