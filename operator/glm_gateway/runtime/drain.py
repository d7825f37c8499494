"""The end of a gateway: it waits for its requests by their number, and says now and then how many are left."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

TOLD_S = 60.0
LOOK_S = 0.1


async def drained(num_running: Callable[[], int], timeout_s: float, *, told_s: float = TOLD_S) -> int:
    """Wait until nothing runs, and no longer than this; return how many requests are left then."""
    log.info("it stops; requests under way: %d, which may take %g s", num_running(), timeout_s)
    waited_s = 0.0
    while waited_s < timeout_s and num_running():
        part_s = min(told_s, timeout_s - waited_s)
        left = await left_after(num_running, part_s)
        waited_s += part_s
        if left and waited_s < timeout_s:
            log.info("requests left: %d, after %g s of %g s", left, waited_s, timeout_s)
    if left := num_running():
        log.warning("requests cut: %d, after %g s of waiting for them", left, timeout_s)
    else:
        log.info("no request is left")
    return left


async def left_after(num_running: Callable[[], int], timeout_s: float) -> int:
    """Wait as `drained` does, and say nothing."""
    clock = asyncio.get_running_loop().time
    until_s = clock() + timeout_s
    while (left := num_running()) and (rest_s := until_s - clock()) > 0:  # noqa: ASYNC110 - a count tells nobody
        await asyncio.sleep(min(LOOK_S, rest_s))
    return left
