"""Reads GET /load of one group for as long as it is there: reports as they come, and word of when none can come."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from glm_gateway.groups.report import BadLine, LineReader, Report
from glm_gateway.proxy.connection import Connection, UpstreamLost
from glm_gateway.proxy.heads import request_head
from glm_gateway.proxy.pool import Pool

log = logging.getLogger(__name__)

LOAD_PATH = "/load"
OK, NOT_THERE = 200, 404


@dataclass(frozen=True, kw_only=True)
class Pace:
    """In seconds."""

    silence_s: float = 5.0  # a line comes each second: a stream that is silent for so long is no stream
    first_s: float = 0.1  # until the first try after a loss, then twice as long each time
    last_s: float = 5.0
    unable_s: float = 30.0  # until a worker that has no /load is asked again: a later version may be in its place


@dataclass
class LoadReader:
    """hear: gets each report. lost: called when a stream ends, and after each try in vain.

    unable: called when the group says that it has no load to tell: a worker from before.
    """

    name: str
    pool: Pool
    hear: Callable[[Report], None]
    lost: Callable[[], None]
    unable: Callable[[], None]
    pace: Pace = field(default_factory=Pace)

    async def run(self) -> None:
        """Read until cancelled. A stream that lasts no longer than the longest pause is a try in vain, as it may come
        and go for ever."""
        clock = asyncio.get_running_loop().time
        num_failures = 0
        while True:
            began_s = clock()
            try:
                is_able, why = await self._read_one(), "the stream ended"
            except _Broken as broken:
                is_able, why = True, str(broken)
            except Exception:  # a mistake of ours: a group that nobody hears would be what it said last, for ever
                log.exception("the load of group %s could not be taken", self.name)
                is_able, why = True, "it could not be taken"
            if not is_able:
                num_failures = 0
                await asyncio.sleep(self.pace.unable_s)
                continue
            self.lost()
            if clock() - began_s > self.pace.last_s:
                num_failures = 0
            if num_failures == 0:
                log.info("the load of group %s is not heard: %s", self.name, why)
            delay_s = min(self.pace.last_s, self.pace.first_s * 2 ** min(num_failures, 16))
            num_failures += 1
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads

    async def _read_one(self) -> bool:
        """Read one stream to its end; return whether the group has one. Raises _Broken for one that has no good end."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.pace.silence_s):
                connection = await self.pool.ask(request_head("GET", LOAD_PATH, (), 0, ()), ())
                head = await connection.head()
            if head.status == NOT_THERE:
                log.info("group %s does not tell its load; own charges count", self.name)
                self.unable()
                return False
            if head.status != OK:  # it ends, or has as many listeners as it allows
                raise UpstreamLost(f"it answered {head.status}", has_answered=True)
            reader = LineReader()
            while True:
                async with asyncio.timeout(self.pace.silence_s):
                    data = await connection.read()
                if not data:
                    return True
                for report in reader.feed(data):
                    self.hear(report)
        except TimeoutError:
            raise _Broken(f"it was silent for {self.pace.silence_s:g} s") from None
        except (UpstreamLost, BadLine) as error:
            raise _Broken(str(error)) from error
        finally:
            if connection is not None:
                connection.close()


class _Broken(Exception):
    """A stream could not be read any further."""
