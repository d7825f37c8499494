"""The body of a request: bounded in size, in what is in it, and in time; and what it asks for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from glm_edge.errors.failure import Failure
from glm_edge.http.heads import MAX_BODY_BYTES, TOO_LARGE, body_too_large
from glm_edge.json_bounds import Unfit, check_size
from glm_gateway.exchange.refused import Gone, Refused
from glm_gateway.surfaces.ask import Ask, NoJson, read

Receive = Callable[[], Awaitable[dict[str, Any]]]

BODY_IDLE_S, BODY_S = 30.0, 300.0  # between two parts of a body, and for the whole of it
LARGE = 2**16  # bytes of a body that takes its turn: a fifth of a millisecond
COUNTED_AT_ONCE = 2**20  # bytes of a body that are looked through without a thread: a millisecond


async def whole_body(receive: Receive) -> bytes:
    """Return the whole body. Raises Gone, and Refused for one that is too long or too slow."""
    parts: list[bytes] = []
    num_bytes, clock = 0, asyncio.get_running_loop().time
    try:
        until_s = clock() + BODY_S
        while True:
            async with asyncio.timeout_at(min(until_s, clock() + BODY_IDLE_S)):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part: bytes = message.get("body", b"")
            num_bytes += len(part)
            if num_bytes <= MAX_BODY_BYTES:
                parts.append(part)
            if not message.get("more_body", False):
                break
    except TimeoutError:
        raise Refused(
            Failure(
                408,
                f"the body did not come: a part of it within {BODY_IDLE_S:g} seconds, and all within {BODY_S:g},"
                " are allowed",
                "invalid_request_error",
                code="request_timeout",
            )
        ) from None
    if num_bytes > MAX_BODY_BYTES:
        raise Refused(body_too_large(TOO_LARGE))
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def ask_in(body: bytes, turn: asyncio.Lock) -> Ask:
    """Return what a body asks for. Raises Refused.

    turn: of all requests. Of large bodies that came at once one is looked through in a round of the loop: the streams
    beside them go on meanwhile, and the first of them is at its group long before the last one is read.
    """
    if len(body) > LARGE:
        async with turn:
            await asyncio.sleep(0)
    await _check_size(body)
    try:
        return read(body)
    except NoJson:
        raise Refused(
            Failure(400, "the body is not a JSON object", "invalid_request_error", code="invalid_json")
        ) from None


async def _check_size(body: bytes) -> None:
    """Raise Refused for a body with more in it than is read. Large ones are counted beside the loop."""
    try:
        if len(body) > COUNTED_AT_ONCE:
            await asyncio.to_thread(check_size, body)
        else:
            check_size(body)
    except Unfit as unfit:
        raise Refused(unfit.failure) from None
