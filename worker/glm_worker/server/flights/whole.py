"""What is made of whole answers: of short ones at once, of long ones in a thread beside the event loop.

An answer of a hundred thousand tokens with their logprobs is put together in a tenth of a second and more. There is one
thread for all of them: of several, the next one would often have Python's lock before the loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from glm_worker.server.flights.replies import Answered

Made = TypeVar("Made")

_MANY = 2048  # deltas, of which as many take some milliseconds
_thread = ThreadPoolExecutor(1, "writes-long-answers")


async def made_of(answers: Sequence[Answered], make: Callable[[], Made]) -> Made:
    """Return what is made of these answers. make: must not touch what the loop's thread may touch meanwhile."""
    if sum(len(answer.deltas) for answer in answers) <= _MANY:
        return make()
    return await asyncio.get_running_loop().run_in_executor(_thread, make)
