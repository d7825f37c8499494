"""Usage while the gateway runs: entries go to the journal within a second, and into the sums at once.

So does what requests under way have used so far: where a process dies, another one that has the journal counts it. What
other processes write is in the sums a second later.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from glm_edge.errors.failure import Failure
from glm_gateway.usage.config import UsageConfig
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.disk.under_way import Orphan, UnderWay
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.ledger import Ledger
from glm_gateway.usage.query import Json, usage_answer
from glm_gateway.usage.spent import Spent

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
LONGEST_PAUSE_S = 16.0  # between two tries, while the disk takes nothing
CLOSE_S, CLOSE_PAUSE_S = 10.0, 0.1

LOOK_S = 5.0
"""Between two looks for what a dead process has left."""


class UsageService:
    """Made by `opened`, ended by `close`. Whatever the disk does, `take` takes, and requests go on.

    spent: the Prior of a store of limits. num_lost: entries that are in the sums and on no disk.

    under_way: returns what requests that have not ended have used so far. heard: told of what other processes have
    counted since this one began. taken_over: told of what counts of a process that died; of those that were dead at the
    start it is in `found`.
    """

    def __init__(self, config: UsageConfig, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger()
        self.spent = Spent()
        self.num_lost = 0
        self.under_way: Callable[[], Sequence[Entry]] = tuple
        self.heard: Callable[[Entry], None] = _ignore
        self.taken_over: Callable[[Entry], None] = _ignore
        self.found: list[Entry] = []
        self._journal = journal
        self._under_way = UnderWay(journal)
        self._taken: list[Entry] = []  # over from dead processes, and written, and not counted
        self._looked_s = time.monotonic()
        self._config = config
        self._clock = clock
        self._trouble = ""  # why the disk takes nothing, while it does not
        self._tidied = ""  # the day on which old days were last dropped
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def opened(
        cls, config: UsageConfig, clock: Callable[[], float] = time.time, *, flush_s: float = FLUSH_S
    ) -> "UsageService":
        """Return the service with the sums of this and the last month as the journal has them. Raises OSError."""
        service = cls(config, await asyncio.to_thread(Journal, config.folder), clock)
        service.found = await asyncio.to_thread(service._rebuild)
        service._task = asyncio.create_task(service._flush_on(flush_s))
        return service

    @property
    def num_unwritten(self) -> int:
        """How many entries are in memory alone."""
        return self._journal.num_unwritten

    @property
    def journal(self) -> Journal:
        """What is on disk."""
        return self._journal

    def take(self, entry: Entry) -> None:
        """Count an entry, and have it written."""
        if not self._count(entry):
            return
        if self.num_unwritten >= self._config.max_unwritten:
            self.num_lost += 1
            if self.num_lost == 1:
                logger.error("usage: %d entries wait for the disk; more are lost from now on", self.num_unwritten)
            return
        self._journal.append(entry)

    async def close(self, limit_s: float = CLOSE_S) -> bool:
        """Return when all is on disk, or after the limit; tell whether it is. Nothing is taken afterwards."""
        self._closing.set()
        if self._task is not None:
            await self._task
        deadline = time.monotonic() + limit_s
        try:
            while not await self._flush():
                if time.monotonic() + CLOSE_PAUSE_S > deadline:
                    logger.error("usage: %d entries are lost: the disk did not take them", self.num_unwritten)
                    return False
                await asyncio.sleep(CLOSE_PAUSE_S)
            return True
        finally:
            self._journal.close()

    def answer(self, key: str, start: str | None, end: str | None) -> Json | Failure:
        """Return the answer to `GET /v1/usage` of a key's owner."""
        today = self._today()
        return usage_answer(
            self.ledger,
            key,
            start,
            end,
            today=today,
            kept_since=_first_of_last_month(today),
            journal=self._journal.id,
        )

    async def _flush_on(self, flush_s: float) -> None:
        pause_s = flush_s
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), pause_s)
            except TimeoutError:
                pause_s = flush_s if await self._flush() else min(2 * pause_s, LONGEST_PAUSE_S)
                await self._take_over()
                await self._tidy()

    async def _flush(self) -> bool:
        """Write what is there, and take in what others wrote; return whether the disk did its part."""
        async with self._writing:
            try:
                fresh = await asyncio.to_thread(self._exchange, self.under_way(), _day_before(self._today()))
            except OSError as error:
                said = error.strerror or type(error).__name__
                if said != self._trouble:
                    logger.error("usage: the journal in %s takes nothing: %s", self._config.folder, said)
                self._trouble = said
                return False
        if self._trouble:
            logger.info("usage: the journal in %s is written again", self._config.folder)
            self._trouble = ""
        for entry in fresh:
            if self._count(entry):
                self.heard(entry)
        return True

    def _exchange(self, under_way: Sequence[Entry], since: str) -> list[Entry]:
        """Write what has ended, and what goes on; return what others wrote of days from one on. Raises OSError.

        In this order: whose end is not on disk is still under way there.
        """
        self._journal.sync()
        self._under_way.write(under_way)
        return [entry for _, entry in self._journal.fresh(since)]

    async def _take_over(self) -> None:
        """Now and then, count what processes had under way that have died meanwhile."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        try:
            found = await asyncio.to_thread(self._recover)
        except OSError as error:
            logger.error("usage: what others had under way cannot be taken over now: %s", error.strerror)
            return
        for entry in found:
            if self._count(entry):
                self.taken_over(entry)

    def _recover(self) -> list[Entry]:
        """Write down what dead processes had under way, and return it. Raises OSError: then it is there next time.

        What they had ended as well is in the journal. So this counts once, wherever in between it is cut off itself.
        """
        for orphan in self._under_way.orphans():
            mine = self._unknown_of(orphan)
            self._journal.write(mine)
            self._taken += mine  # at once: what the next look finds written it leaves out
            orphan.forget()
            logger.warning(
                "usage: a gateway has died; requests that it had under way count as far as is known: %d", len(mine)
            )
        found, self._taken = self._taken, []
        return found

    def _recover_at_start(self) -> tuple[list[Entry], list[Entry]]:
        """Do the same while nothing else runs, and whatever the disk does; return what is written, and what is not:
        that is in memory, and on disk before anything takes the place of its file.
        """
        try:
            return self._recover(), []
        except OSError as error:
            logger.error(
                "usage: what a gateway that died had under way cannot be written to %s now: %s",
                self._config.folder,
                error.strerror,
            )
        written, self._taken = self._taken, []
        unwritten = [entry for orphan in self._under_way.orphans() for entry in self._unknown_of(orphan)]
        for entry in unwritten:
            self._journal.append(entry)
        return written, unwritten

    def _unknown_of(self, orphan: Orphan) -> list[Entry]:
        """Return what a dead process has left of requests of which nothing is on disk otherwise. Raises OSError."""
        left = orphan.entries()
        known = self._journal.written({each.id for each in left}, min((each.day for each in left), default=""))
        return [each for each in left if each.id not in known]

    async def _tidy(self) -> None:
        """Once a day, drop the days that are over."""
        today = self._today()
        if self._tidied == today:
            return
        self._tidied = today
        last_month = _first_of_last_month(today)
        self.ledger.forget_before(last_month)
        self.ledger.forget_ids_before(_day_before(today))  # what comes now has new ids
        self.spent.forget_before(last_month[:7])
        oldest = (date.fromisoformat(today) - timedelta(days=self._config.retention_days)).isoformat()
        try:
            await asyncio.to_thread(self._journal.drop_before, oldest)
        except OSError as error:
            logger.error("usage: days before %s in %s stay: %s", oldest, self._config.folder, error.strerror)

    def _rebuild(self) -> list[Entry]:
        """Count all that is on disk; return what dead processes had under way. Raises OSError."""
        (written, unwritten), last, since = self._recover_at_start(), "", _first_of_last_month(self._today())
        for day, entry in self._journal.fresh(since):
            if day != last:
                self.ledger.forget_ids_before(day)  # the files of a day have all of its entries
                last = day
            self._count(entry)
        for entry in unwritten:
            if entry.day >= since:
                self._count(entry)
        return [*written, *unwritten]

    def _count(self, entry: Entry) -> bool:
        before = self.ledger.partial(entry)
        is_new = self.ledger.add(entry)
        if is_new:
            self.spent.add(entry)
        if before is not None:
            self.spent.add(before, -1)
        return is_new

    def _today(self) -> str:
        return f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m-%d}"


def _ignore(entry: Entry) -> None:
    """Be told of an entry that matters to nobody."""


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()


def _first_of_last_month(day: str) -> str:
    """Return the first day of the month before a day's."""
    return (date.fromisoformat(f"{day[:7]}-01") - timedelta(days=1)).replace(day=1).isoformat()
