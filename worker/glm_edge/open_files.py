"""How many files a process may have open, connections among them: as many as it can, and servers keep below it."""

import contextlib
import resource

MOST = 65_536
"""That are asked for. What shells and container runtimes start with, 1,024, is meant for programs that use select()."""

SPARE = 128
"""For all that is no connection of a client: files that are read again, logs, a store, pages of the management port."""

LEAST_CONNECTIONS = 16


def raise_open_files(most: int = MOST) -> int:
    """Raise the soft limit towards the hard one; return how many files may be open now."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if open_files_allowed() < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system that allows less than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return open_files_allowed()


def open_files_allowed() -> int:
    """Return how many files may be open now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else soft


def connections_within(num_files: int) -> int:
    """Return how many connections of clients there may be where so many files may be open: each may need another one,
    to whom its request is passed on.
    """
    return max(LEAST_CONNECTIONS, (num_files - SPARE) // 2)
