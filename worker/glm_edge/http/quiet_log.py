"""Lines about what strangers send: the first few at once, then one now and then that counts the rest."""

import logging
import time
from collections.abc import Callable

BURST = 5
PERIOD_S = 10.0


class QuietLog:
    """At most BURST lines in PERIOD_S seconds; the next line after them says how many were left out."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._began_s = -PERIOD_S
        self._num_lines = 0
        self._num_left_out = 0

    def warning(self, message: str, *values: object) -> None:
        now = self._clock()
        if now - self._began_s >= PERIOD_S:
            if self._num_left_out:
                self._log.warning("left out %d lines like the ones before", self._num_left_out)
            self._began_s, self._num_lines, self._num_left_out = now, 0, 0
        if self._num_lines >= BURST:
            self._num_left_out += 1
            return
        self._num_lines += 1
        self._log.warning(message, *values)
