"""Guests: programs that run in the cluster only while a test needs them.

Their pid files lie apart from the cluster's own, which is whole without them. A guest belongs to one process at a
time: the one that holds its lock. A process that is killed leaves its guest running, and the next holder of the lock
removes it; `down` removes whatever is in the namespace.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_cluster.locking import held, held_first
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes


def guests(paths: Paths) -> Processes:
    return Processes(paths.guests, paths.logs)


def lock_of(paths: Paths, name: str) -> Path:
    return paths.guests / f"{name}.lock"


@contextmanager
def only_guest(paths: Paths, *names: str) -> Iterator[Processes]:
    """Be the only process that runs these guests; wait for one that does. They are stopped at both ends."""
    with held(lock_of(paths, names[0]), f"another test with {names[0]}"), stopped(paths, *names) as processes:
        yield processes


@contextmanager
def one_of_many(paths: Paths, names: Iterable[str]) -> Iterator[tuple[Processes, str]]:
    """Be the only process that runs one of these guests: the first that nobody else runs. Yield its name, too."""
    with held_first(lock_of(paths, name) for name in names) as lock, stopped(paths, lock.stem) as processes:
        yield processes, lock.stem


@contextmanager
def stopped(paths: Paths, *names: str) -> Iterator[Processes]:
    """Stop guests before and after: those of a test that was killed, and our own."""
    processes = guests(paths)
    try:
        for name in reversed(names):
            processes.stop(name)
        yield processes
    finally:
        for name in reversed(names):
            processes.stop(name)
