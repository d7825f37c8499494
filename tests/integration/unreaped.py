"""A process that is killed and whose parent cannot reap it: the moment between both, for as long as a test wants.

Its connections are closed, so its peers fail. By ptrace(2): the parent of a process may reap it only after its tracer.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from integration.pods import eventually

_PTRACE_SEIZE = 0x4206


@contextmanager
def killed_and_unreaped(process: psutil.Process) -> Iterator[None]:
    """Kill it; let it be reaped at the end. Enter and leave in the same thread."""
    _seize(process.pid)
    process.kill()
    eventually(lambda: process.status() == psutil.STATUS_ZOMBIE)
    try:
        yield
    finally:
        _, status = os.waitpid(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _seize(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_void_p(0)
    if libc.ptrace(ctypes.c_long(_PTRACE_SEIZE), ctypes.c_int(pid), unused, unused):
        pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")
