"""Two thousand cases of raw bytes, the short form of `make fuzz`: no failure of ours, no hang, nothing told."""

import random
from pathlib import Path

import pytest

from fuzz.raw import send, the_gateway, the_worker
from fuzz.raw_bytes import mutated, seeds
from fuzz.replies import Malformed, complaints, replies_in
from fuzz.wire import Reply


async def test_a_gateway_answers_any_bytes_well() -> None:
    async with the_gateway() as target:
        report = await send(target, 1500, seed=7)
    assert report.failures == []
    assert report.slowest_s < 2.0
    assert report.memory_ratio < 1.1
    assert report.num_asked > 50
    assert {200, 204, 400, 401, 403, 404, 405} <= set(report.statuses)


async def test_the_workers_server_answers_any_bytes_well(tmp_path: Path) -> None:
    async with the_worker(tmp_path) as target:
        report = await send(target, 500, seed=7)
    assert report.failures == []
    assert report.slowest_s < 2.0
    assert {200, 400, 404} <= set(report.statuses)


async def test_honest_requests_are_answered() -> None:
    async with the_gateway() as target:
        report = await send(target, len(seeds()), seed=1)
    assert report.failures == []
    assert report.statuses[200] >= 20


def test_the_same_dice_give_the_same_bytes() -> None:
    first, second = (mutated(random.Random("3/9"), seeds(), [b"GET / HTTP/1.1\r\n\r\n"]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nbad header: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n",
    ],
)
def test_replies_that_are_none_are_seen(data: bytes) -> None:
    with pytest.raises(Malformed):
        replies_in(data, has_head=False)


def test_what_is_wrong_with_a_reply_is_seen() -> None:
    told = b'{"error": {"message": "canary"}}'
    assert complaints([Reply(500, {}, b"")], secrets=[])
    assert complaints([Reply(503, {}, told)], secrets=[])
    assert complaints([Reply(400, {}, told)], secrets=["canary"])
    assert complaints([Reply(400, {}, b"oops")], secrets=[])
    assert complaints([Reply(400, {}, b'{"error": {"message": "a KeyError"}}')], secrets=[])
    assert complaints([Reply(400, {}, told)], secrets=["other"]) == []
