"""Memory goes back to the system after large bodies, and pauses of the collector are short.

What a body of megabytes was made into is freed soon, but the C library keeps the pages of it for later, in one arena a
thread. It keeps the more, the larger the blocks are that it has seen: up to 32 MiB at the end of each arena, which not
even a trim gives back. So what it keeps there is bounded, and a trim gives back the pages between.
"""

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

LARGE_BYTES = 2**16
_TRIM_AFTER_S = 1.0  # by then most of what came of the body is freed; one trim is enough for many bodies
_SWITCH_S = 0.001  # Python's default of 5 ms is what a stream waits for a thread that reads a large body, several times
_KEPT_BYTES = 2**20  # at the end of an arena; larger blocks are mapped one by one, and gone when they are freed
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle() -> None:
    """Call once before serving: what there is now stays for good, and the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
    keep_little()


def keep_little() -> None:
    """Let the C library keep little of what is freed. Does nothing where it has no such call."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        mallopt(option, _KEPT_BYTES)


def _trim_of_libc() -> Callable[[], object]:
    """Return what gives free pages back; nothing where the C library has no such call."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: malloc_trim(0)  # lets go of the GIL meanwhile


@dataclass
class Memory:
    """Gives memory back some time after large bodies, once for all that came meanwhile. Use it in one event loop."""

    trim: Callable[[], object] = field(default_factory=_trim_of_libc)
    _is_due: bool = False
    _is_due_again: bool = False

    def freed(self, num_bytes: int) -> None:
        """Note that what was made of a body of this length is done with."""
        if num_bytes < LARGE_BYTES:
            return
        if self._is_due:
            self._is_due_again = True  # the trim that is due may come too early for this one
        else:
            self._is_due = True
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim_now)

    def _trim_now(self) -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self.trim)
        self._is_due, self._is_due_again = self._is_due_again, False
        if self._is_due:
            loop.call_later(_TRIM_AFTER_S, self._trim_now)
