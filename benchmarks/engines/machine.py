"""Whether a machine is quiet enough to measure on, and how fast its memory is."""

import os
import time
from pathlib import Path

import torch

from glm_worker.kernels.cpu.large_pages import prefer_large_pages

MOST_LOAD = 0.5
QUIET_WITHIN_S = 180.0
_BUFFER_BYTES = 512 * 2**20  # many times the caches


class Busy(Exception):
    """Other work runs here; the message says how much."""


def wait_until_quiet(within_s: float = QUIET_WITHIN_S) -> float:
    """Return the load of the last minute once it is low; what one has just done counts until it is forgotten.

    Raises Busy.
    """
    deadline_s = time.monotonic() + within_s
    while (load := os.getloadavg()[0]) > MOST_LOAD:
        if time.monotonic() > deadline_s:
            raise Busy(
                f"the load is {load:.2f}, and times are worth something below {MOST_LOAD} only: "
                "end what runs beside, or look at numbers that mean little with --anyway"
            )
        time.sleep(2)
    return load


def read_bandwidth(threads: int, rounds: int = 7) -> float:
    """Return the bytes/s at which threads can read memory: the best of some sums over a large buffer of fp32.

    It lies in large pages where the system has some: then no engine can do better by asking for them.
    """
    torch.set_num_threads(threads)
    buffer = torch.empty(_BUFFER_BYTES // 4)
    prefer_large_pages(buffer)
    buffer.fill_(1.0)
    best_s = float("inf")
    for _ in range(rounds):
        began_s = time.perf_counter()
        buffer.sum()
        best_s = min(best_s, time.perf_counter() - began_s)
    return _BUFFER_BYTES / best_s


def cat_seconds(files: list[Path], rounds: int = 3) -> float:
    """Return how long reading the files into one buffer takes, as `cat` does, out of the page cache."""
    buffer = bytearray(2**17)  # as cat's
    best_s = float("inf")
    for _ in range(rounds + 1):  # the first brings them into the cache
        began_s = time.perf_counter()
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s
