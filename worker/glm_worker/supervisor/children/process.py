"""What a process asks of the kernel about itself: die with the parent, adopt orphans, carry a name.

Linux only, by prctl(2). The C library is looked up at the call, not at import.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PF_EXITING = 0x4  # of the flags in proc_pid_stat(5); include/linux/sched.h

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's death; exit at once if it is dead already.

    The kernel sends it when the parent's *thread* that made this process ends, so only main threads may spawn here.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies: they are to be killed and reaped here."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Set the name that ps and top show (15 bytes)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def ignore_stop_signals() -> None:
    """Leave SIGINT and SIGTERM to the supervisor.

    A terminal's Ctrl-C and systemd's stop reach every process of the group; a child that obeyed would cut off the
    requests that the supervisor drains. Children start with these signals blocked, so there is no gap before this call.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def process_state(pid: int) -> str:
    """Return the letter of /proc/PID/stat: R running, S sleeping, D in the kernel, T stopped, Z dead; empty: gone."""
    fields = _stat(pid)
    return fields[0].decode() if fields else ""


def is_exiting(pid: int) -> bool:
    """Return whether a process is dead or dying, by a signal or by itself: how it ends is settled.

    The kernel says so before it closes the connections of the process, and lets its parent reap it only when its
    memory and its devices are let go as well. What peers see of a death comes in between.
    """
    fields = _stat(pid)
    return not fields or bool(int(fields[6]) & _PF_EXITING)


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on; none when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - once a rank and tick
            stat = file.read()
    except OSError:
        return []
    return stat[stat.rindex(b")") + 2 :].split()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), unused, unused, unused):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
