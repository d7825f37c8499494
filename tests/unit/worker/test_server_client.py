"""The supervisor's handle on its server, with a server that is a socket."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from glm_worker.control import ControlLink
from glm_worker.messages import (
    Drain,
    FromServer,
    Full,
    InFlightTokensReply,
    InFlightTokensRequest,
    MetricsReply,
    MetricsRequest,
    ToServer,
)
from glm_worker.supervisor.children.children import Child
from glm_worker.supervisor.children.server_client import ServerClient, ServerEvents
from glm_worker.supervisor.evidence.causes import Exit

LIMIT_S = 1.0


@contextlib.asynccontextmanager
async def a_server() -> AsyncIterator[tuple[ServerClient, ControlLink[ToServer]]]:
    """Yield a client, and the end of its link at which the server would be."""
    ours, theirs = socket.socketpair()
    child, link, server = (
        Child("server", 0),
        await ControlLink.open(ours, FromServer),
        await ControlLink.open(theirs, ToServer),
    )
    events = ServerEvents(on_serving=lambda _: None, on_answer=lambda _: None, on_change=lambda: None)
    client = ServerClient(child, link, events)
    yield client, server
    server.close()
    if not child.ended.done():
        child.ended.set_result(Exit(code=0))
    await client.close()


async def test_a_server_is_asked_for_its_metrics() -> None:
    async with a_server() as (client, server):
        asked = asyncio.create_task(client.metrics(60))
        request = await server.receive()
        assert isinstance(request, MetricsRequest)
        server.send(MetricsReply(id=request.id, text="a 1"))
        assert await asked == "a 1"


async def test_a_silent_server_has_no_metrics_after_the_limit() -> None:
    async with a_server() as (client, _server):
        assert await client.metrics(LIMIT_S) is None


async def test_a_server_is_asked_for_its_tokens_in_flight_beside_its_metrics() -> None:
    async with a_server() as (client, server):
        metrics, tokens = asyncio.create_task(client.metrics(60)), asyncio.create_task(client.in_flight_tokens(60))
        first, second = await server.receive(), await server.receive()
        assert isinstance(first, MetricsRequest)
        assert isinstance(second, InFlightTokensRequest)
        server.send(InFlightTokensReply(id=second.id, in_flight_tokens=0))
        assert await tokens == 0
        server.send(MetricsReply(id=first.id, text="a 1"))
        assert await metrics == "a 1"


async def test_tokens_in_flight_of_a_silent_server_are_not_known() -> None:
    async with a_server() as (client, _server):
        assert await client.in_flight_tokens(LIMIT_S) is None


async def test_tokens_in_flight_of_a_server_that_ends_are_not_known_at_once() -> None:
    async with a_server() as (client, server):
        asked = asyncio.create_task(client.in_flight_tokens(3600))
        assert isinstance(await server.receive(), InFlightTokensRequest)
        client.ended.set_result(Exit(signal=9))
        assert await asked is None


async def test_what_a_server_says_of_its_room_is_kept_until_it_says_otherwise() -> None:
    async with a_server() as (client, server):
        assert client.full_because is None
        for reason in ("3 connections are open", None):
            server.send(Full(reason))
            asked = asyncio.create_task(client.in_flight_tokens(60))
            question = await server.receive()
            assert isinstance(question, InFlightTokensRequest)
            server.send(InFlightTokensReply(id=question.id, in_flight_tokens=0))  # what came before it is heard by then
            assert await asked == 0
            assert client.full_because == reason


async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    async with a_server() as (client, server):
        assert await client.in_flight_tokens(0.0) is None
        late, asked = await server.receive(), asyncio.create_task(client.in_flight_tokens(60))
        assert isinstance(late, InFlightTokensRequest)
        server.send(InFlightTokensReply(id=late.id, in_flight_tokens=1))
        current = await server.receive()
        assert isinstance(current, InFlightTokensRequest)
        server.send(InFlightTokensReply(id=current.id, in_flight_tokens=2))
        assert await asked == 2


async def test_a_server_that_ends_in_its_drain_is_not_called_late(caplog: pytest.LogCaptureFixture) -> None:
    async with a_server() as (client, server):
        draining = asyncio.create_task(client.drain(accept_s=60, deadline_s=60))
        assert isinstance(await server.receive(), Drain)
        client.ended.set_result(Exit(signal=9))
        await draining
    assert [record.message for record in caplog.records] == [
        "the server ended before it was drained: it was killed by signal 9 (SIGKILL)"
    ]


async def test_a_freeze_of_the_whole_pod_is_no_silence_of_its_server() -> None:
    async with a_server() as (client, server):
        asked = asyncio.create_task(client.metrics(LIMIT_S))
        request = await server.receive()
        assert isinstance(request, MetricsRequest)
        time.sleep(1.5 * LIMIT_S)  # noqa: ASYNC251 - nothing of this process runs meanwhile
        answer = MetricsReply(id=request.id, text="a 1")
        asyncio.get_running_loop().call_later(0.01, server.send, answer)  # the server wakes after us
        assert await asked == "a 1"
