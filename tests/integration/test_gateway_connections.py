"""Connections to groups, against sockets that say what they like: replies come whole or are said to be lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from glm_gateway.proxy.connection import HIGH_WATER, Connection, UpstreamLost
from glm_gateway.proxy.pool import Patience, Pool

ASK = b"POST /v1 HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
DEADLINE_S = 10.0
Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Group:
    """A socket that answers each request by `say`. num_connections: that it was ever given."""

    def __init__(self, say: Say) -> None:
        self.num_connections = 0
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                await self._say(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(say: Say, **patience: float) -> AsyncIterator[tuple[Pool, Group]]:
    group = Group(say)
    server = await asyncio.start_server(group.accept, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], patience=Patience(**patience))
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield pool, group
    finally:
        pool.close()
        server.close()
        await group.stop()


def saying(*parts: bytes, then_close: bool = False) -> Say:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then_close:
            raise ConnectionError

    return say


@contextlib.asynccontextmanager
async def asked(pool: Pool, *more: bytes) -> AsyncIterator[Connection]:
    connection = await pool.ask(ASK, [b"{}", *more])
    try:
        yield connection
    finally:
        pool.done(connection)


async def whole(connection: Connection) -> tuple[int, bytes]:
    return (await connection.head()).status, await read_all(connection)


async def read_all(connection: Connection) -> bytes:
    pieces = []
    while data := await connection.read():
        pieces.append(data)
    return b"".join(pieces)


async def test_a_connection_is_used_again_after_a_whole_reply() -> None:
    async with serving(saying(WHOLE)) as (pool, group):
        for _ in range(3):
            async with asked(pool) as connection:
                assert (await connection.head()).status == 200
                assert await read_all(connection) == b"ok"
        assert group.num_connections == 1


async def test_a_connection_whose_reply_was_left_is_not_used_again() -> None:
    async with serving(saying(WHOLE)) as (pool, group):
        async with asked(pool) as connection:
            await connection.head()
        async with asked(pool) as connection:
            assert await read_all(connection) == b"ok"
        assert group.num_connections == 2


async def test_a_reply_that_announces_its_end_of_the_connection_is_the_last_one_on_it() -> None:
    last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    async with serving(saying(last)) as (pool, _), asked(pool) as connection:
        assert await read_all(connection) == b"ok"
        assert not connection.is_reusable


async def test_headers_of_the_connection_stay_on_it() -> None:
    reply = b"HTTP/1.1 503 X\r\nConnection: keep-alive\r\nRetry-After: 3\r\ncontent-length: 0\r\n\r\n"
    async with serving(saying(reply)) as (pool, _):
        async with asked(pool) as connection:
            head = await connection.head()
        assert head.status == 503
        assert head.headers == ((b"retry-after", b"3"), (b"content-length", b"0"))
        assert head.get(b"retry-after") == b"3"


async def test_an_interim_answer_is_no_reply() -> None:
    early = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n"
    async with serving(saying(early, WHOLE)) as (pool, _), asked(pool) as connection:
        assert (await connection.head()).headers == ((b"content-length", b"2"),)
        assert await read_all(connection) == b"ok"


async def test_a_reply_without_a_length_ends_with_the_connection() -> None:
    say = saying(b"HTTP/1.1 200 OK\r\n\r\nall", b" of it", then_close=True)
    async with serving(say) as (pool, _), asked(pool) as connection:
        assert await read_all(connection) == b"all of it"
        assert not connection.is_reusable


@pytest.mark.parametrize(
    ("parts", "has_answered", "reason"),
    [
        ((b"",), False, "closed"),
        ((b"HTTP/1.1 200 OK\r\ncontent-",), False, "closed"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",), True, "closed"),
        ((CHUNKED, b"3\r\nabc\r\n"), True, "closed"),
        ((CHUNKED, b"nonsense\r\n"), True, "does not speak HTTP"),
        ((b"SSH-2.0-OpenSSH\r\n",), False, "does not speak HTTP"),
        ((b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000 + b"\r\n\r\n",), False, "its head has more than"),
    ],
)
async def test_a_reply_that_breaks_off_is_lost_with_its_reason(
    parts: tuple[bytes, ...], has_answered: bool, reason: str
) -> None:
    async with serving(saying(*parts, then_close=True)) as (pool, _), asked(pool) as connection:
        with pytest.raises(UpstreamLost, match=reason) as caught:
            await whole(connection)
        assert caught.value.has_answered is has_answered
        assert not connection.is_reusable


async def test_what_came_before_the_loss_is_read_first() -> None:
    async with serving(saying(CHUNKED, b"3\r\nabc\r\n", then_close=True)) as (pool, _), asked(pool) as connection:
        assert await connection.read() == b"abc"
        with pytest.raises(UpstreamLost):
            await connection.read()


async def test_a_second_reply_to_one_request_ends_the_connection() -> None:
    async with serving(saying(WHOLE + WHOLE)) as (pool, _), asked(pool) as connection:
        with contextlib.suppress(UpstreamLost):
            assert await read_all(connection) == b"ok"
        assert not connection.is_reusable


async def test_a_group_that_refuses_before_it_has_read_all_is_heard() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()  # and reads no more

    async with serving(refuse) as (pool, _), asked(pool, *[b"x" * 2**20] * 64) as connection:
        assert (await connection.head()).status == 413
        assert await connection.read() == b""
        assert not connection.is_reusable


async def test_a_group_that_does_not_read_is_given_up() -> None:
    async def stand_still(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(stand_still, write_s=0.2) as (pool, _):
        with pytest.raises(UpstreamLost, match="has not read"):
            await pool.ask(ASK, [b"{}", *[b"x" * 2**20] * 64])


async def test_nobody_there_is_a_loss_without_an_answer() -> None:
    async with serving(saying(WHOLE)) as (pool, _):
        pass
    with pytest.raises(UpstreamLost, match="no connection") as caught:
        await Pool("127.0.0.1", pool.port).ask(ASK, [])
    assert not caught.value.has_answered


async def test_a_reader_that_lags_makes_the_group_wait() -> None:
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n")
        for _ in range(64):
            writer.write(b"x" * 2**20)
            await writer.drain()
            sent += 2**20

    async with serving(pour) as (pool, _), asked(pool) as connection:
        await connection.head()
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert sent < 32 * 2**20  # the sockets' buffers, and ours
        first = await connection.read()
        assert len(first) < HIGH_WATER + 2**20
        assert len(first + await read_all(connection)) == 64 * 2**20
