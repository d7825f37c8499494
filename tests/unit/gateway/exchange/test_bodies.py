"""Bodies under way have a bound together, and no caller fills it for all others."""

from typing import Any

import pytest

from glm_edge.http.heads import MAX_BODY_BYTES
from glm_gateway.exchange.bodies import Bodies, Body
from glm_gateway.exchange.refused import Refused


def body(bodies: Bodies, num_bytes: int, caller: str = "") -> Body:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * num_bytes}

    found = bodies.of_one(receive)
    found.caller = caller
    return found


async def test_one_caller_alone_has_half_of_the_room_and_leaves_the_other_half() -> None:
    bodies = Bodies(max_bytes=800)
    for _ in range(4):
        await body(bodies, 100, "alice")()
    with pytest.raises(Refused) as refused:
        await body(bodies, 100, "alice")()
    assert "500 bytes" in refused.value.failure.message
    assert (refused.value.failure.status, bodies.num_bytes) == (503, 400)
    for name in ("bob", "carol", "dave", "erin"):
        await body(bodies, 100, name)()
    with pytest.raises(Refused):
        await body(bodies, 1, "frank")()


async def test_room_that_is_given_back_is_there_again() -> None:
    bodies = Bodies(max_bytes=800)
    first = body(bodies, 400, "alice")
    await first()
    with pytest.raises(Refused):
        await body(bodies, 1, "alice")()
    first.end()
    first.end()
    assert (bodies.num_bytes, dict(bodies.of_callers)) == (0, {})
    await body(bodies, 400, "alice")()


async def test_where_nobody_knows_callers_all_have_the_room_together() -> None:
    bodies = Bodies(max_bytes=800)
    for _ in range(8):
        await body(bodies, 100)()
    with pytest.raises(Refused):
        await body(bodies, 1)()


async def test_what_is_longer_than_any_body_that_is_kept_takes_no_more_room_than_that() -> None:
    bodies = Bodies(max_bytes=2 * MAX_BODY_BYTES)
    endless = body(bodies, MAX_BODY_BYTES // 2 + 1)
    for _ in range(9):
        await endless()
    assert bodies.num_bytes == MAX_BODY_BYTES
    endless.end()
    assert bodies.num_bytes == 0


async def test_a_message_without_bytes_needs_no_room() -> None:
    bodies = Bodies(max_bytes=800)
    alice = body(bodies, 300, "alice")
    await alice()
    for name in ("bob", "carol"):
        await body(bodies, 100, name)()

    async def left() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    alice.receive = left
    assert await alice() == {"type": "http.disconnect"}
