"""Responses in the background: what they hold is kept until they have ended, and counted as they say then.

Their clients are told an id and go. So the gateway asks the group that makes one how it stands, and hears it where its
client asks. Whose end cannot be known, as the group or the response is gone, counts as it was reserved.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from glm_edge.frames import LOOK_HEADER
from glm_gateway.admission.metering import Metering
from glm_gateway.admission.reserved import Reserved
from glm_gateway.models.model import Model
from glm_gateway.proxy.connection import UpstreamLost
from glm_gateway.proxy.heads import request_head
from glm_gateway.surfaces.usage import Stored, UsageReader

log = logging.getLogger(__name__)

FIRST_S, MOST_S = 0.5, 5.0
"""Between two looks at one response: it begins with the first, and grows to the other."""

LOOK_S = 2.0
"""For each step of a look."""

GONE_S = 60.0
"""A group that cannot be asked for so long knows nothing of its responses any more: they are in its memory."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A response that a group makes. id: of it. request_id: of its request. headers: who we are, and who asks.

    began_s: when its request came, by the clock of the loop.
    """

    id: str
    reserved: Reserved
    request_id: str
    model: Model
    group: str
    headers: Sequence[tuple[bytes, bytes]]
    began_s: float


@dataclass
class _Followed:
    """heard: how it has ended; None: that is not known. wake: look at once."""

    begun: Begun
    heard: Stored | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class _Gone(Exception):
    """Nobody can say any more how a response has ended."""


class Background:
    """All that are on their way. Use it from one event loop, and close it before what counts."""

    def __init__(self, metering: Metering) -> None:
        self._metering = metering
        self._followed: dict[str, _Followed] = {}
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._followed)

    def follow(self, begun: Begun) -> None:
        """Keep what a response holds until it has ended, and count it then."""
        followed = self._followed[begun.id] = _Followed(begun)
        followed.task = asyncio.create_task(self._follow(followed))

    async def hear(self, stored: Stored | None) -> None:
        """Take what a group has told a client of a response: one that has ended is counted when this returns."""
        followed = None if stored is None or not stored.is_over else self._followed.get(stored.id)
        if followed is not None and followed.task is not None:
            followed.heard = stored
            followed.wake.set()
            await asyncio.shield(followed.task)

    async def close(self) -> None:
        """Count all: who has not ended by now as it was reserved."""
        self._is_closing = True
        tasks = [each.task for each in self._followed.values() if each.task is not None]
        for each in self._followed.values():
            each.wake.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, followed: _Followed) -> None:
        begun, loop = followed.begun, asyncio.get_running_loop()
        try:
            ended = await self._ended(followed)
            if ended is None:
                log.warning(
                    "request=%s how its response has ended is not known; it counts as reserved", begun.request_id
                )
            seconds = loop.time() - begun.began_s
            await self._metering.settle_response(begun.reserved, begun.request_id, ended, e2e_s=seconds)
        finally:
            del self._followed[begun.id]  # not before it is counted: `close` waits for all that are here

    async def _ended(self, followed: _Followed) -> Stored | None:
        """Return how a response has ended, once it has; None: that cannot be known."""
        clock, pause_s = asyncio.get_running_loop().time, FIRST_S
        asked_s = clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await followed.wake.wait()
            if followed.heard is not None:
                return followed.heard
            pause_s = min(MOST_S, pause_s * 1.5)
            try:
                found = await _look(followed.begun)
            except _Gone:
                return followed.heard
            if found is not None and found.is_over:
                return found
            if found is not None:
                asked_s = clock()
            if self._is_closing or clock() - asked_s > GONE_S:
                return None


async def _look(begun: Begun) -> Stored | None:
    """Return how a response stands; None: its group does not say. Raises _Gone."""
    head = request_head("GET", f"/v1/responses/{begun.id}", (), 0, [*begun.headers, (LOOK_HEADER.encode(), b"1")])
    try:
        pool = begun.model.directory.pool(begun.group)
        connection = await pool.ask(head, ())
    except KeyError as error:
        raise _Gone from error
    except UpstreamLost:
        return None
    try:
        told = await connection.head(LOOK_S)
        reader = UsageReader(told.get(b"content-type"))
        while data := await connection.read(LOOK_S):
            reader.feed(data)
    except UpstreamLost:
        return None
    finally:
        pool.done(connection)
    if told.status == 404:
        raise _Gone
    return reader.stored
