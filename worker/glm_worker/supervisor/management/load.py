"""What the group carries, as GET /load streams it: a line of JSON when something changed, and at least every second.

Nothing is looked at, nor asked of the server, while nobody listens. Each line takes the place of the one before, so
what a listener has not read yet is never more than one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from glm_worker.messages import LoadChanged

MAX_LISTENERS = 32  # a gateway has one a replica
LOOK_S = 0.1  # between two lines at least
AGAIN_S = 0.8  # then a line is said again: with the time to look, at least one a second


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. None: not known, which is never 0."""

    ready: bool
    leaving: bool  # it drains, and takes no more
    in_flight_tokens: int | None = None  # of all requests: prompts, and answers so far
    tokens_to_prefill: int | None = None  # of them, prompt tokens that no step has computed
    oldest_waiting_s: float | None = None  # of the requests of which no step has computed anything; 0: none waits
    kv_usage: float | None = None  # 1 is full
    kv_tokens: int | None = None  # that the cache holds when full
    max_running: int | None = None  # requests that may run at once
    max_model_len: int | None = None  # tokens of prompt and answer that one request may have together
    num_running: int | None = None
    num_waiting: int | None = None
    prefill_tokens_per_s: float | None = None  # while prompts are computed; None before
    fingerprint: str | None = None  # who has the same can go on with a reply
    model: str | None = None
    revision: str | None = None
    incarnation: str  # another one: the KV cache is empty
    start_s: float | None = None  # from the start of this pod until it first served


def line_of(
    load: LoadChanged | None, *, ready: bool, leaving: bool, incarnation: str, revision: str, start_s: float | None
) -> Line:
    """Return the line of a group. load: what its server says; None: it says nothing."""
    common: dict[str, Any] = {
        "ready": ready,
        "leaving": leaving,
        "incarnation": incarnation,
        "revision": revision or None,
        "start_s": None if start_s is None else round(start_s, 3),
    }
    return Line(**common, **({} if load is None else msgspec.structs.asdict(load)))


class LoadBoard:
    """look: what stands now. on_watched: told when the first listener comes and when the last one has gone."""

    def __init__(self, look: Callable[[], Line], on_watched: Callable[[bool], None]) -> None:
        self._look = look
        self._on_watched = on_watched
        self._listeners = 0
        self._line = b""
        self._posted = asyncio.Event()  # of the line that comes next
        self._hurried = asyncio.Event()
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def num_listeners(self) -> int:
        return self._listeners

    @property
    def is_watched(self) -> bool:
        return self._listeners > 0

    def hurry(self) -> None:
        """Look now: what has changed is not to wait for the next look."""
        self._hurried.set()

    def close(self) -> None:
        """End all streams, and begin no other."""
        self._is_closed = True
        self._posted.set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """Give the lines, the first at once, until the board is closed; None where too many listen already."""
        if self._listeners >= MAX_LISTENERS or self._is_closed:
            yield None
            return
        self._listeners += 1
        if self._listeners == 1:
            self._line = _encoded(self._look())
            self._on_watched(True)
            self._task = asyncio.create_task(self._post_forever())
        lines = self._lines()
        try:
            yield lines
        finally:
            await lines.aclose()
            self._listeners -= 1
            if self._listeners == 0:
                assert self._task is not None
                self._task.cancel()
                self._task = None
                self._on_watched(False)

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        while not self._is_closed:
            posted = self._posted
            yield self._line
            await posted.wait()

    async def _post_forever(self) -> None:
        clock = asyncio.get_running_loop().time
        posted_s = clock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._hurried.wait()
            self._hurried.clear()
            line, now = _encoded(self._look()), clock()
            if line == self._line and now - posted_s < AGAIN_S:
                continue
            self._line, posted_s = line, now
            posted, self._posted = self._posted, asyncio.Event()
            posted.set()


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
