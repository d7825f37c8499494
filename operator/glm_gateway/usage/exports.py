"""Files of what was used, one a day that is over: made soon after midnight (UTC), and at the start for days before.

Each journal has files of its own, with its id in their names: gateways may share a folder, and who adds up all files of
a day has each request once. Of the processes that share a journal one writes them. A file is there whole or not at all,
and one that is there is never written again.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from glm_gateway.usage.config import ExportConfig, Format
from glm_gateway.usage.disk.files import locked, write_whole
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.disk.under_way import first_day
from glm_gateway.usage.export import as_csv, as_json_lines
from glm_gateway.usage.ledger import Ledger

log = logging.getLogger(__name__)

AFTER_MIDNIGHT_S = 60.0
"""What ended before midnight is in the journal by then."""

LOOK_S = 30.0


class Exports:
    """clock: seconds since 1970."""

    def __init__(self, config: ExportConfig, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._journal = journal
        self._clock = clock
        self._trouble = ""  # why nothing can be written, while it cannot
        self._is_done_until = ""  # before this day all are there

    async def run(self, look_s: float = LOOK_S) -> None:
        """Export until cancelled, whatever the disk does."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except OSError as error:
                said = error.strerror or type(error).__name__
                if said != self._trouble:
                    log.error("usage: exports to %s cannot be written: %s", self._config.folder, said)
                self._trouble = said
            await asyncio.sleep(look_s)

    def look(self) -> int:
        """Write the files of days that are over and have none yet; return how many. Raises OSError."""
        today = f"{datetime.fromtimestamp(self._clock() - AFTER_MIDNIGHT_S, UTC):%Y-%m-%d}"
        if self._is_done_until == today:
            return 0
        lock = locked(self._journal.folder / "exports.lock")
        if lock is None:
            return 0  # another process of this gateway writes them now
        try:
            return self._look(today)
        finally:
            os.close(lock)

    def _look(self, today: str) -> int:
        open_since = first_day(self._journal.folder)
        num_written, is_whole = 0, not "" < open_since < today  # also of a day of which nothing has ended
        for day in self._journal.days():
            if day >= today:
                break
            missing = [each for each in self._config.formats if not self._path(day, each).exists()]
            if missing and (self._journal.has_unwritten(day) or "" < open_since <= day):
                is_whole = False  # the disk of the journal is full, or a gateway has died: what it has is not all
                continue
            num_written += self._export(day, missing)
        if is_whole:
            self._is_done_until = today
        if self._trouble:
            log.info("usage: exports to %s are written again", self._config.folder)
            self._trouble = ""
        return num_written

    def _export(self, day: str, formats: list[Format]) -> int:
        if not formats:
            return 0
        ledger = Ledger()
        ledger.add_all(self._journal.entries(day))
        self._config.folder.mkdir(parents=True, exist_ok=True)
        for each in formats:
            data = as_csv(ledger.sums(day=day)).encode() if each is Format.CSV else as_json_lines(ledger.sums(day=day))
            write_whole(self._path(day, each), data, mode=0o640)
        log.info("usage: %s is exported to %s", day, self._config.folder)
        return len(formats)

    def _path(self, day: str, format_: Format) -> Path:
        return self._config.folder / f"usage-{day}-{self._journal.id}.{format_.lower()}"
