"""Memory goes back to the system after large bodies, and pauses of the collector are short.

What a body of megabytes was made into is freed soon, but the C library keeps the pages of it for later, in one arena a
thread: a wave of such bodies would stay in the process for good.
"""

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

LARGE_BYTES = 2**16
_TRIM_AFTER_S = 2.0  # by then most of what came of the body is freed; one trim is enough for many bodies
_SWITCH_S = 0.001  # Python's default of 5 ms is what a stream waits for a thread that reads a large body, several times


def settle() -> None:
    """Call once before serving: what there is now stays for good, and the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)


def _trim_of_libc() -> Callable[[], object]:
    """Return what gives free pages back; nothing where the C library has no such call."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: malloc_trim(0)  # lets go of the GIL meanwhile


@dataclass
class Memory:
    """Gives memory back some time after a large body, once for all that came meanwhile. Use it in one event loop."""

    trim: Callable[[], object] = field(default_factory=_trim_of_libc)
    _is_due: bool = False

    def read(self, num_bytes: int) -> None:
        """Note that a body of this length was read."""
        if num_bytes >= LARGE_BYTES and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim_now)

    def _trim_now(self) -> None:
        self._is_due = False
        asyncio.get_running_loop().run_in_executor(None, self.trim)
