"""Reading a request's body: bounded, and aware that the client may go away meanwhile."""

import asyncio

from starlette.types import Receive

from glm_edge.http.heads import MAX_BODY_BYTES, TOO_LARGE
from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.edge.body_room import RETRY_AFTER_S, STALLED_S, Reading

IDLE_S = 30.0  # between two parts of a body
TOTAL_S = 300.0  # for the whole of it


class ClientGone(Exception):
    """The connection closed before the body was complete."""


async def read_body(receive: Receive, checkpoint: Checkpoint, reading: Reading) -> bytes:
    """Return the whole body. Raises ClientGone, RequestRefused when it is too long or too slow, and Overloaded.

    Parsing megabytes holds up all streams, so what cannot fit is refused unparsed. A client that has sent it all reads
    the answer, so the rest is read too: the connection ends what does not end.
    """
    try:
        async with asyncio.timeout(TOTAL_S):
            return await _read(receive, checkpoint, reading)
    except TimeoutError:
        if reading.gives_way:
            raise Overloaded(
                f"no part of the body came for {STALLED_S:g} seconds, and others need its place; try again",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        raise RequestRefused(
            f"the body did not come: a part of it within {IDLE_S:g} seconds, and all within {TOTAL_S:g}, are allowed",
            code="request_timeout",
            status=408,
        ) from None


async def _read(receive: Receive, checkpoint: Checkpoint, reading: Reading) -> bytes:
    enough = min(checkpoint.max_prompt_json_bytes or MAX_BODY_BYTES, MAX_BODY_BYTES)
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        async with asyncio.timeout(IDLE_S) as reading.waits:
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        num_bytes += len(chunk)
        past = reading.see(len(chunk))
        if num_bytes <= enough:
            await reading.expect(len(chunk))
            reading.grow(len(chunk))
            chunks.append(chunk)
        else:
            chunks.clear()
            reading.drop()
        if not message.get("more_body", False):
            break
        del chunk, message  # nobody counts them while they wait
        if past:
            await reading.rest(past)
    if num_bytes > MAX_BODY_BYTES:
        raise RequestRefused(TOO_LARGE, code="body_too_large", status=413)
    if num_bytes > enough:
        raise RequestRefused(
            f"this model's maximum context length is {checkpoint.max_model_len} tokens, for which {enough} bytes of"
            f" JSON are read; the body has {num_bytes}",
            code="context_length_exceeded",
        )
    reading.complete()
    return b"".join(chunks)
