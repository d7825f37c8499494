"""A bound of the CPU time that something takes, far above its need: what grew with a power of its input is past it.

The garbage collector stands still meanwhile: to look through all that thousands of tests hold takes it a second.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(cpu_s: float) -> Iterator[None]:
    """Fail if the block takes more CPU seconds of this process."""
    gc.disable()
    began_s = time.process_time()
    try:
        yield
        took_s = time.process_time() - began_s
    finally:
        gc.enable()
    assert took_s < cpu_s, f"took {took_s:.2f} s of CPU, at most {cpu_s} s are allowed"
