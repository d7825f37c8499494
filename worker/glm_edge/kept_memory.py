"""Memory that a process has freed and keeps for what comes next, as glibc may be told.

By itself glibc gives the end of its heap back to the system as soon as some hundred KB of it are free. A prompt is as
long, and is copied some times on its way: each copy then asks for memory that the system has to clear anew, page by
page, which costs several times what copying does.
"""

import ctypes

KEPT_BYTES = 32 * 2**20
"""At most, at the end of the heap: a sixteenth of the bodies that a gateway may have at once."""

LARGE_BYTES = 4 * 2**20
"""What is larger comes from the system and goes back to it at once."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h


def keep_freed_memory(kept: int = KEPT_BYTES, large: int = LARGE_BYTES) -> bool:
    """Keep so many bytes; tell whether the C library of this process can be told so. Others go on as they do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_TRIM_THRESHOLD, kept) == 1 and mallopt(_MMAP_THRESHOLD, large) == 1
