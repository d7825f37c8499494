"""No key and no text of a prompt or an answer is in a log, a metric, a page or an error of the gateway, whatever became
of the request: two words, sent everywhere, are in none."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_edge.frames import Fail
from glm_edge.logs import Discreet
from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Key, Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.audit.config import AuditConfig
from glm_gateway.audit.log import AuditLog
from glm_gateway.continuation.progress import Bounds
from glm_gateway.exchange import body as gateway_body
from glm_gateway.groups.directory import Member
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.main import LOG_FORMAT
from glm_gateway.pages.pages import no_worker
from glm_gateway.routing.pick import Group
from glm_gateway.traces.config import TraceConfig
from glm_gateway.traces.traces import Traces
from glm_gateway.usage.config import UsageConfig
from glm_gateway.usage.service import UsageService
from integration.gateway_world import a_gateway
from integration.no_tls import NO_TLS
from integration.scripted_groups import (
    DIE,
    FRAMES_HEAD,
    ScriptedGroup,
    Step,
    chunk,
    closed,
    opened,
    plain,
    said,
    serving,
)

Json = dict[str, Any]
TEXT, SECRET = "canary-of-a-prompt", "glm-canary-of-a-key"
REQUEST_ID = "r-1"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
_OURS = ("glm_", "uvicorn", "asyncio")  # the clients of this test log what they like
DEADLINE_S = 20.0
QUOTAS = {"keys": {"limited": {"requestsPerMinute": 0}, "small": {"contextTokens": 5}}}


class Lines(logging.Handler):
    """What the gateway's program would write, at the finest level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(Discreet(LOG_FORMAT))
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_OURS):
            self.told.append(self.format(record))


@dataclass
class World:
    http: httpx.AsyncClient
    gateway: Gateway
    group: ScriptedGroup
    lines: Lines
    usage: UsageService
    folder: Path
    replies: list[httpx.Response] = field(default_factory=list)

    async def ask(self, path: str = CHAT, *script: Step, secret: str = SECRET, **fields: Any) -> str:
        """Ask with the words in the body, in a header and in the query; return what came back, with its status."""
        body = {"model": "m", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 5, **fields}
        return await self.send(path, json.dumps(body).encode(), *script, secret=secret)

    async def send(self, path: str, body: bytes, *script: Step, secret: str = SECRET) -> str:
        self.group.scripts[:] = [list(script) for _ in range(9) if script]
        headers = {
            "authorization": f"Bearer {secret}",
            "x-canary": TEXT,
            "user-agent": TEXT,
            "x-request-id": REQUEST_ID,
        }
        try:
            reply = await self.http.post(f"{path}?q={TEXT}", content=body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"{reply.status_code} {reply.text}"

    async def sinks(self) -> str:
        """Return all that the gateway wrote down or tells to others."""
        async with asyncio.timeout(DEADLINE_S):
            while self.gateway.num_running:  # noqa: ASYNC110 - nothing tells a test
                await asyncio.sleep(0.01)
        pages = [(await self.http.get(path)).text for path in ("/health", "/openapi.json", "/docs")]
        told = await self.http.get(f"/v1/traces/{REQUEST_ID}", headers={"x-api-key": SECRET})
        pages.append(told.text)
        journal = [path.read_text() for path in self.folder.rglob("*") if path.is_file()]
        metrics = self.gateway.telemetry.exposition().decode()
        return "\n".join([*self.lines.told, metrics, *pages, *journal])

    async def keeps_quiet(self, told: str = "") -> bool:
        """Tell whether neither word is in an error, or in anything that is written down."""
        for word in (TEXT, SECRET):
            assert word not in told
            assert word not in await self.sinks()
        return True


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def keyring() -> Keyring:
    now = datetime.now(UTC)
    made: Callable[..., Key] = lambda name, expires=None: new_key(  # noqa: E731
        f"{SECRET}{name}", now, group=None, role=None, expires=expires
    )
    over = made("over", now - timedelta(days=1))
    return Keyring({"alice": made(""), "limited": made("limited"), "small": made("small"), "over": over})


@pytest_asyncio.fixture
async def world(lines: Lines, tmp_path: Path) -> AsyncIterator[World]:
    group, keys = ScriptedGroup("g0", []), keyring()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(group))
        usage = await UsageService.opened(UsageConfig(folder=tmp_path), flush_s=0.01)
        stack.push_async_callback(usage.close)
        metering = Metering(quotas=QuotasConfig.model_validate(QUOTAS), store=MemoryStore(usage.spent), usage=usage)
        audit = AuditLog.opened(AuditConfig(file=tmp_path / "audit.jsonl", requests=True))
        stack.callback(audit.close)
        gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keys)
        members = [Member(Group(name="g0"), "127.0.0.1", group.port)]
        url, gateway = await stack.enter_async_context(
            a_gateway(
                "m",
                members,
                gate=gate,
                metering=metering,
                bounds=Bounds(max_times=0),
                audit=audit,
                traces=Traces(TraceConfig(enabled=True)),
            )
        )
        gateway.pages.of_worker = no_worker  # the group only says what it is told to
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        yield World(http, gateway, group, lines, usage, tmp_path)


ANSWER = json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()


async def test_of_what_is_answered_nothing_is_written_down(world: World) -> None:
    frames = (FRAMES_HEAD, opened(), said(TEXT, 1, 2), closed())
    assert TEXT in await world.ask(CHAT, *frames, stream=True)
    assert TEXT in await world.ask(CHAT, FRAMES_HEAD, opened(), said("", 1), closed(ANSWER))
    assert TEXT in await world.ask(CHAT, plain(200, ANSWER))
    assert await world.keeps_quiet()
    async with asyncio.timeout(DEADLINE_S):
        for sign in ('"key"', '"what"', '"outcome"'):  # of the journal, of a trace, of the audit log
            while sign not in await world.sinks():  # noqa: ASYNC110 - written down by others
                await asyncio.sleep(0.01)
    assert await world.keeps_quiet()


@pytest.mark.parametrize("secret", [f"{SECRET}unknown", f"{SECRET}over", f"{SECRET}\xff", f"{SECRET} {SECRET}"])
async def test_a_key_that_opens_nothing_is_not_told_back(world: World, secret: str) -> None:
    told = await world.ask(secret=secret.encode("latin-1"))  # type: ignore[arg-type]
    assert told.startswith("401")
    assert await world.keeps_quiet(told)


async def test_nor_are_two_that_differ(world: World) -> None:
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": f"{SECRET}2"}
    reply = await world.http.post(CHAT, json={"model": "m"}, headers=headers)
    assert reply.status_code == 401
    reply = await world.http.post(CHAT, json={}, headers={"authorization": f"Basic {SECRET}"})
    assert reply.status_code == 401
    assert await world.keeps_quiet(reply.text)


@pytest.mark.parametrize(("name", "status"), [("limited", "429"), ("small", "400")])
async def test_a_limit_says_nothing_of_either(world: World, name: str, status: str) -> None:
    told = await world.ask(secret=f"{SECRET}{name}")
    assert told.startswith(status)
    assert await world.keeps_quiet(told)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"messages": "{TEXT}"'.encode(),
        f'"{TEXT}"'.encode(),
        f'{{"model": ["{TEXT}"], "messages": "{TEXT}"}}'.encode(),
        f'{{"model": "m", "messages": {"[" * 70}"{TEXT}"{"]" * 70}}}'.encode(),
        f'{{"model": "m", "max_tokens": "{TEXT}", "n": 1e999, "x": "{TEXT}"}}'.encode(),
        b"\xff\xfe" + TEXT.encode(),
    ],
)
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, "/api/paas/v4/chat/completions"])
async def test_a_body_that_cannot_be_sent_on_is_refused_without_its_text(world: World, path: str, body: bytes) -> None:
    told = await world.send(path, body)
    assert told[:3] in ("400", "404")
    assert await world.keeps_quiet(told)


FAILED = chunk(Fail(status=500, message=TEXT, type="server_error", code="x", can_continue=True), TEXT.encode())


@pytest.mark.parametrize(
    ("script", "is_stream"),
    [
        ((DIE,), False),
        ((FRAMES_HEAD, opened(), said(TEXT, 1), DIE), True),
        ((FRAMES_HEAD, opened(), said("", 1), DIE), False),
        ((FRAMES_HEAD, b"%x\r\n%s\r\n0\r\n\r\n" % (len(TEXT), TEXT.encode())), True),
        ((TEXT.encode() + b"\r\n\r\n", DIE), False),
        ((b"HTTP/1.1 200 OK\r\n" + TEXT.encode() + b"\r\n\r\n", DIE), False),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + TEXT.encode(), DIE), False),
        ((plain(503, TEXT.encode()),), False),
        ((plain(500, b"{}"),), False),
        ((FRAMES_HEAD, opened(), FAILED, DIE), True),
    ],
)  # fmt: skip
async def test_a_group_that_breaks_off_or_says_nonsense_leaves_no_text(
    world: World, script: tuple[Step, ...], is_stream: bool
) -> None:
    told = await world.ask(CHAT, *script, stream=is_stream)
    error = told.rpartition("error")[2] if is_stream else told
    if "content-length: 99" not in str(script):  # what was passed on before it broke off is the client's
        assert TEXT not in error
    assert await world.keeps_quiet()


async def test_a_request_that_nobody_takes_leaves_no_text(world: World) -> None:
    model = world.gateway.models["m"]
    model.replace([])
    asked = asyncio.create_task(world.ask(stream=True))
    async with asyncio.timeout(DEADLINE_S):
        while not model.demand.num_held:  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
    asked.cancel()
    assert await world.keeps_quiet()


async def test_a_fault_of_ours_that_quotes_a_prompt_is_logged_without_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(body: bytes) -> None:
        try:
            raise KeyError(body.decode())
        except KeyError as error:
            raise ValueError(f"cannot read {body!r} of {SECRET}") from error

    monkeypatch.setattr(gateway_body, "read", breaks)
    told = await world.ask()
    assert told.startswith("500")
    assert json.loads(told[4:])["error"]["code"] == "internal_error"
    (line,) = [line for line in world.lines.told if "Traceback" in line]
    assert "KeyError" in line
    assert "breaks" in line
    assert await world.keeps_quiet(told)


@pytest.mark.parametrize("name", ["content-encoding", "transfer-encoding", "content-length", "upgrade", "expect"])
async def test_a_key_in_a_wrong_header_is_not_told_back(world: World, name: str) -> None:
    host, port = world.http.base_url.host, world.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{name}: {SECRET}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_S):
        told = (await reader.read()).decode()
    writer.close()
    assert told.startswith("HTTP/1.1 ")
    assert await world.keeps_quiet(told)


async def test_what_is_no_http_leaves_no_text(world: World) -> None:
    host, port = world.http.base_url.host, world.http.base_url.port
    assert port is not None
    for data in (f"{TEXT} {SECRET}\r\n\r\n", f"GET /{TEXT}\r\n\r\n", f"GET / HTTP/1.1\r\n{SECRET} x: {TEXT}\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(data.encode())
        async with asyncio.timeout(DEADLINE_S):
            told = (await reader.read()).decode()
        writer.close()
        assert told.startswith("HTTP/1.1 400")
        assert await world.keeps_quiet(told)
