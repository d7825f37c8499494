"""GET /load as an ASGI application: the lines of a LoadBoard to one listener, until it goes or the board is closed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from glm_worker.supervisor.management.load import MAX_LISTENERS, LoadBoard

_log = logging.getLogger("glm_worker.supervisor")

WRITE_LIMIT_S = 5.0  # for a listener to read what it was sent
CONTENT_TYPE = "application/x-ndjson"


class LoadStream:
    """board: who tells it; it returns None in a pod that follows."""

    def __init__(self, board: Callable[[], LoadBoard | None]) -> None:
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        board = self._board()
        if board is None:
            refusal = PlainTextResponse("the load of a group is told by its leading pod; this one follows\n", 404)
            await refusal(scope, receive, send)
            return
        async with board.listen() as lines:
            if lines is None:
                said = f"{MAX_LISTENERS} listen already, which is as many as may\n"
                await PlainTextResponse(said, 503, headers={"retry-after": "5"})(scope, receive, send)
                return
            telling = asyncio.create_task(_tell(lines, send))
            leaving = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            except TimeoutError:
                _log.warning("a listener of /load has read nothing for %.0f s; it is dropped", WRITE_LIMIT_S)
            finally:
                telling.cancel()
                leaving.cancel()
                await asyncio.wait({telling, leaving})


async def _tell(lines: AsyncIterator[bytes], send: Send) -> None:
    """Send what is told, to its end. Raises TimeoutError for a listener that does not read."""
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for line in lines:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await send({"type": "http.response.body", "body": line, "more_body": True})
    async with asyncio.timeout(WRITE_LIMIT_S):
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
