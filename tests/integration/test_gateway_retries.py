"""Clients of Python before a gateway's process: they wait as long as they are told, and are answered then.

Waits are real. A refusal and the try after it are seen at the client's own connection.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import pytest_asyncio

from glm_gateway.access.keys import item_of, new_key
from integration.gateway_process import TOKEN, GatewayProcess, a_gateway_process, model_of
from integration.load_port import LoadPort, a_load_port
from integration.server_world import DEADLINE_S, MODEL, ServerWorld, a_server
from integration.writing_engine import Writer, writing

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: Any = [{"role": "user", "content": "hi"}]
A_MINUTE = 60  # tokens of answers: one in a second
LATE_S = 1.0  # of a machine that is busy with others

NAMES = (
    "openai",
    "openai-stream",
    "openai-responses",
    "openai-responses-stream",
    "openai-sync",
    "anthropic",
    "anthropic-sync",
)
QUOTAS: dict[str, dict[str, Any]] = {
    "keys": {
        **{f"limited-{name}": {"answerTokensPerMinute": A_MINUTE} for name in NAMES},
        "spent": {"monthlyBudget": {"tokens": 0}},
        "small": {"contextTokens": 100, "monthlyBudget": {"tokens": 100_000}},
        "told": {"requestsPerMinute": 10, "promptTokensPerMinute": 5000, "answerTokensPerMinute": 1000},
    },
}


@dataclass
class Seen:
    """What came over one client's connections: when each request went and each reply came, by the clock of waits."""

    asked_s: list[float] = field(default_factory=list)
    replies: list[tuple[float, int, Any]] = field(default_factory=list)

    def ask(self, _: Any) -> None:
        self.asked_s.append(time.monotonic())

    def reply(self, response: Any) -> None:
        self.replies.append((time.monotonic(), response.status_code, response.headers))

    async def ask_later(self, request: Any) -> None:
        self.ask(request)

    async def reply_later(self, response: Any) -> None:
        self.reply(response)

    @property
    def statuses(self) -> list[int]:
        return [status for _, status, _ in self.replies]

    def waited(self) -> tuple[float, float]:
        """Return what the first refusal told to wait, and what the client did wait, in seconds."""
        refused_s, _, headers = self.replies[0]
        told_s = float(headers["retry-after"])
        if "retry-after-ms" in headers:
            told_s = float(headers["retry-after-ms"]) / 1000
        return told_s, self.asked_s[1] - refused_s


@dataclass
class World:
    gateway: GatewayProcess
    server: ServerWorld
    writer: Writer
    load: LoadPort
    stack: contextlib.AsyncExitStack

    async def hold(self, **bounds: float) -> None:
        """Bound otherwise, from now on, what may wait for a group."""
        self.gateway.write(hold=bounds)
        digest = sha256((self.gateway.folder / "gateway.json").read_bytes()).hexdigest()
        await self.gateway.until("/state", digest)

    def find_group(self) -> None:
        self._write(self.server.port)

    def lose_group(self) -> None:
        self._write(None)

    async def lose_group_and_see(self) -> None:
        """Lose it, and wait until the gateway knows."""
        self.lose_group()
        await self.gateway.until_value(f'glm_gateway_groups_ready{{model="{MODEL}"}}', 0)

    def _write(self, port: int | None) -> None:
        groups = [{"name": "chat-g0", "host": "127.0.0.1", "port": port, "management_port": self.load.port}]
        part = self.gateway.folder / "groups.part"
        part.write_text(json.dumps({"groups": groups if port is not None else []}))
        part.rename(self.gateway.folder / "groups.json")

    def openai(self, key: str = "free", seen: Seen | None = None, *, retries: int = 0) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", **self._plain(key, seen, retries))

    def anthropic(self, key: str = "free", seen: Seen | None = None, *, retries: int = 0) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.gateway.url, **self._plain(key, seen, retries))

    def clients(self, *, retries: int, limited: str = "") -> dict[str, "Client"]:
        """Return each client, with a key and so with limits of its own. limited: what keys with limits begin with."""
        found = {}
        for name in NAMES:
            seen, key = Seen(), limited + name
            if name.endswith("-sync"):
                ask = self._in_thread(name, key, seen, retries)
            elif name == "anthropic":
                ask = partial(_message, self.anthropic(key, seen, retries=retries))
            else:
                ask = partial(ASKING[name], self.openai(key, seen, retries=retries))
            found[name] = Client(name, seen, ask)
        return found

    def _in_thread(self, name: str, key: str, seen: Seen, retries: int) -> "Asking":
        http = httpx2.Client(
            verify=False, timeout=DEADLINE_S, event_hooks={"request": [seen.ask], "response": [seen.reply]}
        )
        self.stack.enter_context(http)
        plain: Any = {"api_key": f"glm-{key}", "max_retries": retries, "http_client": http}
        if name == "openai-sync":
            return partial(asyncio.to_thread, _chat_now, openai.OpenAI(base_url=f"{self.gateway.url}/v1", **plain))
        return partial(asyncio.to_thread, _message_now, anthropic.Anthropic(base_url=self.gateway.url, **plain))

    def _plain(self, key: str, seen: Seen | None, retries: int) -> Any:
        hooks = {} if seen is None else {"request": [seen.ask_later], "response": [seen.reply_later]}
        http = httpx2.AsyncClient(verify=False, timeout=DEADLINE_S, event_hooks=hooks)
        self.stack.push_async_callback(http.aclose)
        return {"api_key": f"glm-{key}", "max_retries": retries, "http_client": http}


Asking = Callable[[int], Awaitable[str]]


@dataclass
class Client:
    """One client. ask: for an answer of at most so many tokens; returns the text."""

    key: str
    seen: Seen
    ask: Asking


def _chat_now(client: openai.OpenAI, most: int) -> str:
    reply = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=most)
    return reply.choices[0].message.content or ""


def _message_now(client: anthropic.Anthropic, most: int) -> str:
    reply = client.messages.create(model=MODEL, messages=ASK, max_tokens=most)
    return "".join(block.text for block in reply.content if block.type == "text")


async def _message(client: anthropic.AsyncAnthropic, most: int) -> str:
    async with client.messages.stream(model=MODEL, messages=ASK, max_tokens=most) as stream:
        return "".join([word async for word in stream.text_stream])


async def _chat(client: openai.AsyncOpenAI, most: int) -> str:
    reply = await client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=most)
    return reply.choices[0].message.content or ""


async def _stream(client: openai.AsyncOpenAI, most: int) -> str:
    chunks = await client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=most, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def _response(client: openai.AsyncOpenAI, most: int) -> str:
    return (await client.responses.create(model=MODEL, input="hi", max_output_tokens=most)).output_text


async def _response_stream(client: openai.AsyncOpenAI, most: int) -> str:
    events = await client.responses.create(model=MODEL, input="hi", max_output_tokens=most, stream=True)
    return "".join([event.delta async for event in events if event.type == "response.output_text.delta"])


ASKING = {
    "openai": _chat,
    "openai-stream": _stream,
    "openai-responses": _response,
    "openai-responses-stream": _response_stream,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("retries")
    (folder / "keys").mkdir()
    for name in [*QUOTAS["keys"], *NAMES, "free"]:
        key = new_key(f"glm-{name}", datetime.now(UTC), group=None, role=None, expires=None)
        (folder / "keys" / name).write_bytes(item_of(key))
    promise = {"classes": [{"name": "all", "thresholds_s": {"ttft": 0.2}}]}
    config = {
        "auth": {"mode": "Keys", "keysFolder": str(folder / "keys")},
        "models": [model_of(MODEL, folder / "groups.json", slo=promise)],
        "quotas": QUOTAS,
        "overload": {"calmSeconds": 0.1},
    }
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_server(folder, gateway_token=TOKEN, group="chat-g0"))
        writer = await stack.enter_async_context(writing(await server.serve()))
        load = await stack.enter_async_context(a_load_port())
        gateway = await stack.enter_async_context(a_gateway_process(folder, **config))
        yield World(gateway, server, writer, load, stack)


@pytest_asyncio.fixture(loop_scope="module")
async def world(running: World) -> World:
    """The one gateway, as it is at first: with a group, and patient."""
    await running.hold()
    running.find_group()
    await running.gateway.until_value(f'glm_gateway_groups_ready{{model="{MODEL}"}}', 1)
    return running


def waited_as_told(client: Client, status: int) -> None:
    """Check that a client was refused once, came again when it was told to, and not much later."""
    assert client.seen.statuses == [status, 200]
    told_s, waited_s = client.seen.waited()
    assert told_s <= waited_s <= told_s * 1.2 + LATE_S


async def test_a_limit_is_waited_out_as_told_and_then_the_request_is_answered(world: World) -> None:
    clients = world.clients(retries=0, limited="limited-")
    await asyncio.gather(*(each.ask(A_MINUTE) for each in clients.values()))  # all that they may have at once
    clients = world.clients(retries=2, limited="limited-")
    texts = await asyncio.gather(*(each.ask(3) for each in clients.values()))
    for client in clients.values():
        waited_as_told(client, 429)
        assert client.seen.waited()[0] <= 3.0
    assert set(texts) == {"aaa"}


async def test_a_deployment_without_a_group_is_waited_for_as_its_starts_take(world: World) -> None:
    await world.hold(maxHeld=0)
    world.load.say(start_s=2.0)
    clients = world.clients(retries=1)
    await world.lose_group_and_see()
    asked = [asyncio.create_task(each.ask(5)) for each in clients.values()]
    async with asyncio.timeout(DEADLINE_S):
        while not all(each.seen.replies for each in clients.values()):  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
    world.find_group()
    assert set(await asyncio.gather(*asked)) == {"aaaaa"}
    for name, client in clients.items():
        waited_as_told(client, 529 if name.startswith("anthropic") else 503)
        assert client.seen.waited()[0] == 2.0


STREAMS = ("openai-stream", "openai-responses-stream", "anthropic")


async def test_streams_that_wait_for_a_group_read_the_answer_when_it_comes(world: World) -> None:
    """Comments come meanwhile, which tell for what: each client passes over them."""
    await world.lose_group_and_see()
    clients = world.clients(retries=0)
    asked = [asyncio.create_task(clients[name].ask(5)) for name in STREAMS]
    async with asyncio.timeout(DEADLINE_S):
        while not all(clients[name].seen.replies for name in STREAMS):  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
    await world.gateway.until("/demand", '"held":3')
    world.find_group()
    assert set(await asyncio.gather(*asked)) == {"aaaaa"}
    assert [clients[name].seen.statuses for name in STREAMS] == [[200]] * 3


async def test_streams_that_waited_in_vain_end_with_an_error_that_their_clients_raise(world: World) -> None:
    await world.hold(timeoutSeconds=1.5)
    await world.lose_group_and_see()
    clients = world.clients(retries=5)
    ended = await asyncio.gather(*(clients[name].ask(5) for name in STREAMS), return_exceptions=True)
    assert [type(each) for each in ended] == [openai.APIError, openai.APIError, anthropic.APIStatusError]
    assert all("no group took the request within 1.5 s" in str(each) for each in ended)
    assert [clients[name].seen.statuses for name in STREAMS] == [[200]] * 3  # its head was out: nothing is tried again


async def test_what_no_wait_would_mend_is_not_tried_again(world: World) -> None:
    seen = Seen()
    with pytest.raises(openai.RateLimitError) as spent:
        await _chat(world.openai("spent", seen, retries=5), 5)
    assert spent.value.code == "insufficient_quota"
    assert spent.value.type == "insufficient_quota"
    with pytest.raises(openai.BadRequestError) as too_long:
        await _chat(world.openai("small", seen, retries=5), 100)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(anthropic.RateLimitError) as spent_there:
        await _message(world.anthropic("spent", seen, retries=5), 5)
    assert spent_there.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await _message(world.anthropic("small", seen, retries=5), 100)
    assert seen.statuses == [429, 400, 429, 400]


async def test_errors_are_those_that_clients_know(world: World) -> None:
    with pytest.raises(openai.AuthenticationError) as no_key:
        await _chat(world.openai("nobody", retries=2), 5)
    assert no_key.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as no_key_there:
        await _message(world.anthropic("nobody", retries=2), 5)
    assert no_key_there.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError) as no_model:
        await world.openai().chat.completions.create(model="other", messages=ASK)
    assert no_model.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError):
        await world.anthropic().messages.create(model="other", messages=ASK, max_tokens=5)
    with pytest.raises(openai.BadRequestError) as wrong:
        await world.openai().chat.completions.create(model=MODEL, messages=ASK, top_p=7)
    assert (wrong.value.param, wrong.value.code) == ("top_p", "invalid_value")
    await world.hold(maxHeld=0)
    await world.lose_group_and_see()
    with pytest.raises(openai.InternalServerError) as no_group:
        await _chat(world.openai(), 5)
    assert (no_group.value.status_code, no_group.value.code) == (503, "no_group_ready")
    with pytest.raises(anthropic.APIStatusError) as no_group_there:
        await _message(world.anthropic(), 5)
    assert no_group_there.value.status_code == 529
    assert no_group_there.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
    assert no_group_there.value.request_id


async def test_each_client_reads_what_is_left_in_the_headers_that_it_knows(world: World) -> None:
    told = (
        await world.openai("told")
        .with_options(max_retries=0)
        .chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=40)
    )
    usage = (told.parse()).usage
    assert usage is not None
    assert told.headers["x-ratelimit-limit-requests"] == "10"
    assert told.headers["x-ratelimit-remaining-requests"] == "9"
    assert told.headers["x-ratelimit-limit-tokens"] == "1000"
    assert told.headers["x-ratelimit-remaining-tokens"] == "960"
    raw = world.anthropic("told").messages.with_raw_response
    headers = (await raw.create(model=MODEL, messages=ASK, max_tokens=50)).headers
    found = {name.removeprefix("anthropic-ratelimit-"): headers[name] for name in headers if "ratelimit" in name}
    assert (found["requests-limit"], found["requests-remaining"]) == ("10", "8")
    assert (found["output-tokens-limit"], found["input-tokens-limit"]) == ("1000", "5000")
    assert 910 <= int(found["output-tokens-remaining"]) <= 950  # 1000 - 40 - 50, and what a second or two has filled
    assert {found[f"{what}-reset"][-1] for what in ("requests", "tokens", "input-tokens", "output-tokens")} == {"Z"}
    assert not any(name.startswith("x-ratelimit") for name in headers)


async def test_clients_list_models_and_count_tokens(world: World) -> None:
    assert [model.id async for model in world.openai().models.list()] == [MODEL]
    assert [model.id async for model in world.anthropic().models.list()] == [MODEL]
    counted = await world.anthropic().messages.count_tokens(model=MODEL, messages=ASK)
    message = await world.anthropic().messages.create(model=MODEL, messages=ASK, max_tokens=5)
    assert counted.input_tokens == message.usage.input_tokens
    assert message._request_id


async def test_who_is_shed_comes_again_when_the_line_is_worked_off(world: World) -> None:
    client, others = world.clients(retries=1)["openai"], world.openai()
    await asyncio.gather(*(_chat(others, 20) for _ in range(4)))  # so many tokens in a second are known then
    world.load.say(max_running=1, oldest_waiting_s=60.0)
    world.writer.is_open.clear()
    first = asyncio.create_task(_chat(others, 20))
    await world.gateway.until_value(f'glm_gateway_overload_rung{{model="{MODEL}"}}', 4)
    second = asyncio.create_task(_chat(others, 20))
    await world.gateway.until("/demand", '"held":1')
    third = asyncio.create_task(client.ask(20))
    await world.gateway.until_value(f'glm_gateway_shed_total{{model="{MODEL}"}}', 1)
    world.load.say(oldest_waiting_s=0.0)
    world.writer.is_open.set()
    assert await asyncio.gather(first, second, third) == ["a" * 20] * 3
    waited_as_told(client, 503)
    _, _, headers = client.seen.replies[0]
    assert headers["x-glm-overload"] == "shed"
