"""A light client of a calibration: many streamed completions at once, on bare sockets.

It shares the machine with the group that is measured, so it must take less of it than the server does.
"""

import asyncio
import time
from collections.abc import Sequence

from glm_worker.errors import EngineFailed


async def stream_all(host: str, port: int, bodies: Sequence[bytes]) -> list[tuple[float, float]]:
    """Send all requests at once; return when the first and the last text of each came, on the monotonic clock.

    Raises EngineFailed for an answer without text, or any but 200.
    """
    return await asyncio.gather(*(_stream(host, port, body) for body in bodies))


async def _stream(host: str, port: int, body: bytes) -> tuple[float, float]:
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    try:
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: calibration\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        status = await reader.readline()
        if b" 200 " not in status:
            answer = (status + await reader.read())[:1000]
            raise EngineFailed(f"the group answered the calibration with {answer.decode(errors='replace')}")
        first_s = last_s = 0.0
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                last_s = time.monotonic()
                first_s = first_s or last_s
    finally:
        writer.close()
    if not first_s:
        raise EngineFailed("a request of the calibration brought no text")
    return first_s, last_s
