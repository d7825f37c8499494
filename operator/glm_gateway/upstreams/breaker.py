"""Whether a server outside is asked: after some failures in a row not for a while, then by one request. Pure."""

from dataclasses import dataclass

FAILURES = 3
FIRST_S = 1.0
LONGEST_S = 60.0
PROBE_S = 60.0
"""A probe that says nothing for so long was lost: there may be another one."""


@dataclass
class Breaker:
    """now: seconds of a clock that never goes back."""

    _failures: int = 0
    _times_out: int = 0
    _out_until_s: float | None = None
    _probe_s: float | None = None

    def is_open(self, now: float) -> bool:
        """Tell whether nobody is to be sent there now."""
        if self._out_until_s is None:
            return False
        if now < self._out_until_s:
            return True
        return self._probe_s is not None and now - self._probe_s < PROBE_S

    def begin(self, now: float) -> None:
        """Note a request that is sent there: the first one after the time is over is the probe."""
        if self._out_until_s is not None and now >= self._out_until_s:
            self._probe_s = now

    def succeed(self) -> None:
        """Note an answer."""
        self._failures = self._times_out = 0
        self._out_until_s = self._probe_s = None

    def fail(self, now: float) -> None:
        """Note that it did not answer, or only that it is out of order."""
        self._failures += 1
        is_out = self._out_until_s is not None
        if self._failures < FAILURES or (is_out and now < (self._out_until_s or 0.0)):
            return
        self._out_until_s = now + min(LONGEST_S, FIRST_S * 2.0 ** min(self._times_out, 32))
        self._times_out += 1
        self._probe_s = None
