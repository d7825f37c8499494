"""Why a generation ended, and which of several failures to blame. Pure.

The first death drags others with it: peers of a killed rank fail in their collective, a lost pod resets the
connections of those that stay. All of them arrive within milliseconds and in any order, so the one to name is chosen
by what kind of failure it is, and by time only among equals.
"""

import os
import signal
from typing import Literal

import msgspec

Reason = Literal["exited", "killed", "hung", "peer_lost", "server_died", "failed"]
"""exited: a rank returned or left with a code and no word; killed: by a signal that was not ours; hung: stood still, we
killed it; peer_lost: a pod went silent or away; server_died: the HTTP server's process ended before there was a
generation, which outlives it otherwise; failed: said why."""

REASONS: tuple[Reason, ...] = ("exited", "killed", "hung", "peer_lost", "server_died", "failed")

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: no retry can mend it
EXIT_ENGINE = 70  # EX_SOFTWARE: a rank that lost a peer or broke an invariant
EXIT_CRASH = 1  # anything else, as Python itself does


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended: exactly one of both is set."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:  # real-time signals have no name
            name = "real-time"
        return f"was killed by signal {self.signal} ({name})"


def exit_of(wait_status: int) -> Exit:
    """Translate what waitpid returned."""
    code = os.waitstatus_to_exitcode(wait_status)
    return Exit(signal=-code) if code < 0 else Exit(code=code)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One failure, as /group shows it. rank is None when no single rank failed; pod is where it happened."""

    rank: int | None
    pod: int
    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    message: str

    def __str__(self) -> str:
        where = f"pod {self.pod}" if self.rank is None else f"rank {self.rank} in pod {self.pod}"
        return f"{where}: {self.message}"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A cause and when it was seen, in seconds of the monotonic clock of the process that holds it."""

    cause: Cause
    at_s: float


def rank_cause(rank: int, pod: int, ended: Exit, last_word: str) -> Cause:
    """Describe a rank that ended by itself or by a signal not ours. last_word: what its slot says, may be empty."""
    reason: Reason = "killed" if ended.signal is not None else "failed" if last_word else "exited"
    message = f"rank {rank} {ended}"
    if last_word and ended.signal is None:
        message = last_word
    elif ended.signal == signal.SIGKILL:
        message += "; if nobody did it by hand, look for the kernel's out-of-memory killer"
    return Cause(rank=rank, pod=pod, reason=reason, exit_code=ended.code, signal=ended.signal, message=message)


def cut_short_cause(rank: int, pod: int, last_word: str) -> Cause:
    """Describe a rank that had said why it ends, and was killed by us before it had ended."""
    return Cause(rank=rank, pod=pod, reason="failed", message=last_word)


def primary(failures: list[Failure]) -> Cause:
    """Return the failure that explains the others. failures must not be empty."""
    return min(failures, key=lambda failure: (_precedence(failure.cause), failure.at_s)).cause


def _precedence(cause: Cause) -> int:
    """Return how likely this is the effect of another failure: less is more likely the first cause."""
    if cause.reason == "hung":
        return 0  # a verdict, not a symptom
    if cause.reason in ("killed", "server_died"):
        return 1
    if cause.reason == "failed" and cause.rank is None:
        return 2  # a zygote died, and its ranks with it
    if cause.reason == "peer_lost":
        return 3
    if cause.exit_code == EXIT_CONFIG:
        return 4
    if cause.exit_code in (EXIT_ENGINE, None):
        return 6  # says itself that it may be a lost peer, or had no time to say; the earliest is none
    return 5
