"""How many bytes of bodies there are at once, while they come and until something was made of them.

Each connection may send a body of megabytes, and there are thousands of connections. So all bodies together have a
bound, of which the first bytes of each count for nothing: short requests go on being served whatever others send. Where
there is no room for more, a body of which nothing has come for a while goes first, and else the one that grows: it is
told to come again. So neither many large bodies nor many that stop halfway take the memory, or the room, for long.

Who is told so comes again at once, and sends it all once more. So a body that says its length waits for its turn before
it takes room: nothing of it is read meanwhile. It waits for a bounded time, and then takes what room there is, so that
others which claim much and send little cannot keep it out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

from glm_worker.errors import Overloaded
from glm_worker.server.edge.pace import Pace

ROOM_BYTES = 128 * 2**20  # eight of the longest, or a hundred prompts of a long context
FREE_BYTES = 64 * 2**10  # of each body
STALLED_S = 2.0  # a client that sends nothing for so long gives way to others
RETRY_AFTER_S = 2
WAIT_S = 10.0  # for a turn; a body of the longest takes a second to be read
MOST_WAITING = 64  # what came of them, 64 KiB each or a part of it more, counts for nothing


class Reading:
    """One body, from its first byte until something was made of it. Enter it for as long as its bytes are there.

    claim: what it will count, as its client says; 0: nothing is said.
    """

    def __init__(self, room: "BodyRoom", claim: int) -> None:
        self._room = room
        self._claim = claim
        self._num_bytes = 0  # of those that are kept
        self.num_seen = 0  # those that were thrown away included
        self._is_complete = False
        self._rests = False
        self.last_s = 0.0  # when a part of it came
        self.gives_way = False
        self.waits: asyncio.Timeout | None = None  # for the next part

    def __enter__(self) -> "Reading":
        self.last_s = self._room.clock()
        self._room.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.drop()
        self._room.end(self)

    @property
    def counted(self) -> int:
        return max(0, self._num_bytes - FREE_BYTES)

    @property
    def may_give_way(self) -> bool:
        """Whether nothing has come of it for a while, though somebody waits for it, and it holds room."""
        is_awaited = not (self._is_complete or self._rests)
        return is_awaited and self.counted > 0 and self._room.clock() - self.last_s > STALLED_S

    async def expect(self, num_bytes: int) -> None:
        """Wait for the turn of this body, where with another part of that length it takes room for the first time."""
        if self._claim and self.counted == 0 and self._num_bytes + num_bytes > FREE_BYTES:
            claim, self._claim = self._claim, 0
            await self._room.turn(self, claim)
            self.last_s = self._room.clock()

    def grow(self, num_bytes: int) -> None:
        """Note another part. Raises Overloaded where there is no room for it."""
        self.last_s = self._room.clock()
        before = self.counted
        self._num_bytes += num_bytes
        self._room.take(self.counted - before)

    def see(self, num_bytes: int) -> int:
        """Note another part, kept or thrown away. Return how many bytes of it are past the first ones."""
        before, self.num_seen = self.num_seen, self.num_seen + num_bytes
        return max(0, self.num_seen - max(before, FREE_BYTES))

    async def rest(self, num_bytes: int) -> None:
        """Wait before the next part for as long as so many bytes take."""
        self._rests = True
        try:
            await self._room.pace.after(num_bytes)
        finally:
            self._rests = False
            self.last_s = self._room.clock()

    def drop(self) -> None:
        """Note that what came is thrown away."""
        self._room.give_back(self.counted)
        self._room.give_up(self)
        self._num_bytes = 0

    def complete(self) -> None:
        """Note that all of it has come: it waits for us from now on."""
        self._is_complete = True

    def give_way(self) -> None:
        """End the wait for the next part."""
        self.gives_way = True
        self.drop()
        if self.waits is not None:
            self.waits.reschedule(asyncio.get_running_loop().time())


class BodyRoom:
    """For all bodies of a server. Use it in one event loop. num_bytes: of all, without the first bytes of each."""

    def __init__(
        self,
        num_bytes: int = ROOM_BYTES,
        clock: Callable[[], float] = time.monotonic,
        *,
        wait_s: float = WAIT_S,
        pace: Pace | None = None,
    ) -> None:
        self._most = num_bytes
        self._wait_s = wait_s
        self.clock = clock
        self.pace = pace or Pace()
        self.num_bytes = 0
        self._readings: set[Reading] = set()
        self._claims: dict[Reading, int] = {}  # of those whose turn has come
        self._waiting: OrderedDict[Reading, tuple[int, asyncio.Future[None]]] = OrderedDict()

    def reading(self, length: int = 0) -> Reading:
        """length: of the body, as its client says it; 0: it does not."""
        return Reading(self, min(max(0, length - FREE_BYTES), self._most))

    def begin(self, reading: Reading) -> None:
        self._readings.add(reading)

    def end(self, reading: Reading) -> None:
        self._readings.discard(reading)

    async def turn(self, reading: Reading, claim: int) -> None:
        """Wait until there is room for all of a body, first come first served. Who has waited for long goes on."""
        if len(self._waiting) < MOST_WAITING and not self._has_room_for(claim):
            turn = asyncio.get_running_loop().create_future()
            self._waiting[reading] = claim, turn
            await asyncio.wait([turn], timeout=self._wait_s)
        self._waiting.pop(reading, None)
        self._claims[reading] = claim
        self._call_next()

    def give_up(self, reading: Reading) -> None:
        """Forget what a body waits for or claims."""
        self._waiting.pop(reading, None)
        self._claims.pop(reading, None)
        self._call_next()

    def _call_next(self) -> None:
        """Give those their turn that wait first, as far as there is room."""
        while self._waiting:
            first, (claim, turn) = next(iter(self._waiting.items()))
            if sum(self._claims.values()) + claim > self._most:
                return
            del self._waiting[first]
            self._claims[first] = claim
            turn.set_result(None)

    def _has_room_for(self, claim: int) -> bool:
        return not self._waiting and sum(self._claims.values()) + claim <= self._most

    def take(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        if self.num_bytes <= self._most:
            return
        for stalled in sorted(filter(lambda each: each.may_give_way, self._readings), key=lambda each: each.last_s):
            stalled.give_way()
            if self.num_bytes <= self._most:
                return
        raise overloaded(self._most)

    def give_back(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes


def overloaded(most: int) -> Overloaded:
    return Overloaded(
        f"the bodies of other requests take the {most} bytes that are read at once; try again",
        retry_after_s=RETRY_AFTER_S,
    )
