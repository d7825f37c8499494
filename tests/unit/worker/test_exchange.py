"""The response to an order: several answers in one stream, a sign of life before the first token, and a deadline."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from glm_worker.errors import DeadlinePassed, GenerationLost
from glm_worker.messages import RequestOutput, TokenLogprobs
from glm_worker.server.flights import exchange
from glm_worker.server.flights.exchange import Exchange
from glm_worker.server.flights.flight import Flight
from glm_worker.server.flights.framed import FramedExchange
from glm_worker.server.openai.chat.replies import ChatReplies
from glm_worker.server.text.deltas import TokenLogprob
from unit.worker.flights_world import World, tokens
from unit.worker.orders import chat_of

CHAT = {"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


class Client:
    """The other end of the connection."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = b""
        self.is_complete = False
        self.changed = asyncio.Event()
        self.stalls_at: bytes | None = None  # having read this it reads no more, and who sends waits
        self.reads_on = asyncio.Event()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.is_complete = not message.get("more_body", False)
        self.changed.set()
        if self.stalls_at is not None and self.stalls_at in self.body:
            await self.reads_on.wait()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(10):
            while text not in self.body:
                self.changed.clear()
                await self.changed.wait()


def an_exchange(
    world: World, *, is_framed: bool = False, **fields: Any
) -> tuple[Client, Sequence[str], asyncio.Task[None]]:
    """Return a client, the ids of the jobs of its request, and the exchange on its way. is_framed: for a gateway."""
    of_order = {name: fields.pop(name) for name in ("deadline_s", "arrived_s", "shows_reasoning") if name in fields}
    order = chat_of({**CHAT, **fields})
    order = type(order)(**{**{f: getattr(order, f) for f in order.__dataclass_fields__}, **of_order})
    client = Client()
    replies = ChatReplies(order, "m", 0)
    run = (
        FramedExchange(order, replies, world.flights, {}, fingerprint="f")
        if is_framed
        else Exchange(order, replies, world.flights, {})
    )
    scope = {"type": "http", "headers": []}
    return client, [job.id for job in order.jobs], asyncio.create_task(run(scope, client.receive, client.send))


async def admitted(world: World) -> None:
    """Let the exchange run up to where it waits for the engine."""
    await asyncio.sleep(0)
    assert len(world.flights)


async def test_a_stream_that_has_nothing_to_tell_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEADERS_AFTER_S", 0.01)
    monkeypatch.setattr(exchange, "KEEP_ALIVE_S", 0.01)
    world = World()
    world.serve()
    client, _, task = an_exchange(world, stream=True)
    await client.until(b": waiting\n\n: waiting\n\n")
    assert client.status == 200
    task.cancel()


async def test_a_request_that_showed_signs_of_life_only_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEADERS_AFTER_S", 0.01)
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(world, stream=True)
    await client.until(b": waiting")
    world.flights.lose("g1", "rank 1 was killed")
    engine = world.serve("g2")
    assert engine.submitted == [job_id]
    world.step(tokens(world.flights._flights[job_id], "hello", "stop"))
    await task
    assert b'"content":"hello"' in client.body
    assert client.is_complete


async def test_a_failure_after_the_headers_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEADERS_AFTER_S", 0.01)
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(world, stream=True)
    await client.until(b": waiting")
    world.flights.fail(world.flights._flights[job_id], GenerationLost("the group lost it"))
    await task
    assert b'data: {"error":{"message":"the group lost it"' in client.body
    assert client.is_complete


async def test_a_failure_before_the_headers_is_raised() -> None:
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(world, stream=True)
    await admitted(world)
    world.flights.fail(world.flights._flights[job_id], GenerationLost("the group lost it"))
    with pytest.raises(GenerationLost):
        await task
    assert client.status is None


@pytest.mark.parametrize("stream", [True, False])
async def test_a_deadline_ends_the_request_and_frees_the_engine(stream: bool) -> None:
    world = World()
    engine = world.serve()
    client, (job_id,), task = an_exchange(world, stream=stream, deadline_s=0.01)
    with pytest.raises(DeadlinePassed, match=r"0\.01 seconds"):
        await task
    assert engine.cancelled == [job_id]
    assert client.status is None


async def test_a_deadline_in_the_middle_of_a_stream_is_an_event() -> None:
    world = World()
    engine = world.serve()
    client, (job_id,), task = an_exchange(world, stream=True, deadline_s=0.3)
    await admitted(world)
    world.step(tokens(world.flights._flights[job_id], "hello"))
    await task
    assert b'"content":"hello"' in client.body
    assert b"deadline_passed" in client.body
    assert engine.cancelled == [job_id]


async def test_hidden_reasoning_is_counted_and_not_told() -> None:
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(
        world, stream=True, stream_options={"include_usage": True}, shows_reasoning=False
    )
    await admitted(world)
    world.step(tokens(world.flights._flights[job_id], "<think>secret</think>\nhello", "stop"))
    await task
    assert b"secret" not in client.body
    assert b"reasoning_content" not in client.body
    assert b'"content":"hello"' in client.body
    assert b'"reasoning_tokens":0' not in client.body


async def test_the_time_before_admission_counts_towards_the_deadline() -> None:
    world = World()
    engine = world.serve()
    _, (job_id,), task = an_exchange(world, deadline_s=60.0, arrived_s=time.monotonic() - 60.0)
    with pytest.raises(DeadlinePassed, match="60 seconds"):
        await task
    assert engine.cancelled == [job_id]


async def test_what_is_told_of_likely_tokens_is_made_as_they_come_and_not_at_the_end() -> None:
    """All at once it takes a second of the loop: 16 answers of 2,000 tokens with 20 likely ones each."""
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(world, logprobs=True, top_logprobs=2, thinking={"type": "disabled"})
    await admitted(world)
    flight = world.flights._flights[job_id]
    output = tokens(flight, "1 2", "stop")
    likely = [TokenLogprobs(-0.5, 1, [(token_id, -0.5), (7, -2.5)]) for token_id in output.token_ids]
    world.step(RequestOutput(job_id, output.token_ids[:-1], None, likely[:-1]))
    of_tokens = [delta for delta in flight._deltas if isinstance(delta, TokenLogprob)]
    assert len(of_tokens) == len(output.token_ids) - 1
    assert all(each.spelled is not None and not each.top for each in of_tokens)
    world.step(RequestOutput(job_id, output.token_ids[-1:], "stop", likely[-1:]))
    await task
    told = json.loads(client.body)["choices"][0]["logprobs"]["content"]
    assert [[top["logprob"] for top in each["top_logprobs"]] for each in told] == [[-0.5, -2.5]] * len(of_tokens)
    assert "".join(each["token"] for each in told) == "1 2"


async def stalled(world: World, *, is_framed: bool) -> tuple[Client, Flight, asyncio.Task[None]]:
    """Return a client that has read the first word of a stream and reads no more, and its flight and exchange."""
    world.serve()
    client, (job_id,), task = an_exchange(world, is_framed=is_framed, stream=True, thinking={"type": "disabled"})
    client.stalls_at = b"hello"
    await admitted(world)
    flight = world.flights._flights[job_id]
    world.step(tokens(flight, "hello"))
    await client.until(b"hello")
    return client, flight, task


@pytest.mark.parametrize("is_framed", [False, True], ids=["a client", "a gateway"])
async def test_what_an_engine_writes_while_nobody_reads_is_told_to_its_end(is_framed: bool) -> None:
    world = World()
    client, flight, task = await stalled(world, is_framed=is_framed)
    world.step(tokens(flight, " world", "stop"))
    client.reads_on.set()
    await task
    assert b" world" in client.body
    assert b'"finish_reason":"stop"' in client.body
    assert client.is_complete


async def test_a_failure_while_nobody_reads_is_told_as_one() -> None:
    world = World()
    client, flight, task = await stalled(world, is_framed=True)
    world.flights.fail(flight, GenerationLost("the group lost it"))
    client.reads_on.set()
    await task
    assert b"generation_lost" in client.body
    assert client.is_complete


@pytest.mark.parametrize("is_framed", [False, True], ids=["a client", "a gateway"])
async def test_a_deadline_frees_the_engine_though_the_client_does_not_read(is_framed: bool) -> None:
    world = World()
    engine = world.serve()
    client, (job_id,), task = an_exchange(world, is_framed=is_framed, stream=True, deadline_s=0.3)
    client.stalls_at = b"deadline_passed"
    await admitted(world)
    world.step(tokens(world.flights._flights[job_id], "hello"))
    await client.until(b"deadline_passed")
    assert engine.cancelled == [job_id]
    assert not task.done()
    client.reads_on.set()
    await task


@pytest.mark.parametrize("is_framed", [False, True], ids=["a client", "a gateway"])
async def test_a_fault_of_ours_in_the_middle_of_a_stream_is_told_and_frees_the_engine(
    is_framed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway takes a connection that breaks for a broken group, and three groups out for one such request."""
    world = World()
    engine = world.serve()
    client, (job_id,), task = an_exchange(world, is_framed=is_framed, stream=True, thinking={"type": "disabled"})
    await admitted(world)
    world.step(tokens(world.flights._flights[job_id], "hello"))
    await client.until(b"hello")
    monkeypatch.setattr(ChatReplies, "chunks", lambda *_: 1 / 0)
    world.step(tokens(world.flights._flights[job_id], " world"))
    await task
    assert b"internal_error" in client.body
    assert b"division" not in client.body, "what broke is for the log"
    assert client.is_complete
    assert engine.cancelled == [job_id]
    assert world.outcomes() == {"failed": 1}
    assert "ZeroDivisionError" in caplog.text


async def test_a_whole_answer_that_a_gateway_cannot_be_told_ends_with_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.serve()
    client, (job_id,), task = an_exchange(world, is_framed=True, thinking={"type": "disabled"})
    await admitted(world)
    monkeypatch.setattr(ChatReplies, "body", lambda *_: 1 / 0)
    world.step(tokens(world.flights._flights[job_id], "hello", "stop"))
    await task
    assert b"internal_error" in client.body
    assert client.is_complete
