"""The end of a gateway: it waits for its requests by their number, and says now and then how many are left."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

TOLD_S = 60.0
LOOK_S = 0.1


async def drained(num_running: Callable[[], int], timeout_s: float, *, told_s: float = TOLD_S) -> int:
    """Wait until nothing runs, and no longer than this; return how many requests are left then."""
    clock = asyncio.get_running_loop().time
    began_s = last_told_s = clock()
    log.info("it stops; requests under way: %d, which may take %g s", num_running(), timeout_s)
    while (left := num_running()) and (now := clock()) - began_s < timeout_s:
        if now - last_told_s >= told_s:
            last_told_s = now
            log.info("requests left: %d, after %.0f s of %g s", left, now - began_s, timeout_s)
        await asyncio.sleep(min(LOOK_S, told_s, max(0.0, began_s + timeout_s - now)))
    if left:
        log.warning("requests cut: %d, after %g s of waiting for them", left, timeout_s)
    else:
        log.info("no request is left")
    return left
