"""How many bytes of bodies there are at once, while they come and until something was made of them.

Each connection may send a body of megabytes, and there are thousands of connections. So all bodies together have a
bound, of which the first bytes of each count for nothing: short requests go on being served whatever others send. Where
there is no room for more, a body of which nothing has come for a while goes first, and else the one that grows: it is
told to come again. So neither many large bodies nor many that stop halfway take the memory, or the room, for long.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from glm_worker.errors import Overloaded

ROOM_BYTES = 128 * 2**20  # eight of the longest, or a hundred prompts of a long context
FREE_BYTES = 64 * 2**10  # of each body
STALLED_S = 2.0  # a client that sends nothing for so long gives way to others
RETRY_AFTER_S = 2


class Reading:
    """One body, from its first byte until something was made of it. Enter it for as long as its bytes are there."""

    def __init__(self, room: "BodyRoom") -> None:
        self._room = room
        self._num_bytes = 0
        self._is_complete = False
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
        """Whether nothing has come of it for a while, and it holds room."""
        return not self._is_complete and self.counted > 0 and self._room.clock() - self.last_s > STALLED_S

    def grow(self, num_bytes: int) -> None:
        """Note another part. Raises Overloaded where there is no room for it."""
        self.last_s = self._room.clock()
        before = self.counted
        self._num_bytes += num_bytes
        self._room.take(self.counted - before)

    def drop(self) -> None:
        """Note that what came is thrown away."""
        self._room.give_back(self.counted)
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

    def __init__(self, num_bytes: int = ROOM_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = num_bytes
        self.clock = clock
        self.num_bytes = 0
        self._readings: set[Reading] = set()

    def reading(self) -> Reading:
        return Reading(self)

    def begin(self, reading: Reading) -> None:
        self._readings.add(reading)

    def end(self, reading: Reading) -> None:
        self._readings.discard(reading)

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
