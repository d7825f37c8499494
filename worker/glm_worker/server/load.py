"""What this server has to do, told to its supervisor while that wants to know it. Else nothing is computed."""

import asyncio
from collections.abc import Awaitable, Callable

from glm_worker.messages import LoadChanged

LOOK_S = 0.1  # ten times a second is as often as anybody is told
AGAIN_S = 0.8  # said again although nothing has changed: who says nothing for longer is not well


class LoadTeller:
    """look: what stands now. tell: says it, and waits while the supervisor does not read."""

    def __init__(self, look: Callable[[], LoadChanged], tell: Callable[[LoadChanged], Awaitable[None]]) -> None:
        self._look = look
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def watch(self, *, is_on: bool) -> None:
        """Tell from now on, or no more. Said again, it changes nothing."""
        if is_on and self._task is None:
            self._task = asyncio.create_task(self._run())
        elif not is_on and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        told, told_s = None, 0.0
        while True:
            load, now = self._look(), clock()
            if load != told or now - told_s >= AGAIN_S:
                told, told_s = load, now
                await self._tell(load)
            await asyncio.sleep(LOOK_S)
