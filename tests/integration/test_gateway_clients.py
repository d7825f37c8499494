"""Clients of other projects before a gateway with keys and limits, whose group is a running worker with glm-nano.

They are those of test_clients.py, which has what they get without a gateway: here they get the same, wait out a limit
as they are told, and read what it costs.
"""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from glm_gateway.access.keys import item_of, new_key
from integration.free_ports import free_port
from integration.gateway_process import TOKEN, GatewayProcess, a_gateway_process, model_of
from integration.pods import LIMIT_S, ROOT, running_group
from integration.scripted_groups import FRAMES_HEAD, STALL, ScriptedGroup, opened, serving
from integration.server_world import MODEL

SCRIPTS = ROOT / "tests/clients"
OTHER_PYTHON = str(ROOT / ".venv-clients/bin/python")
CASES = {
    "litellm": (OTHER_PYTHON, "python/litellm_client.py"),  # the slowest import first
    "langchain": (OTHER_PYTHON, "python/langchain_client.py"),
    "openai": (sys.executable, "python/openai_client.py"),
    "anthropic": (sys.executable, "python/anthropic_client.py"),
    "node-openai": ("node", "node/openai_client.mjs"),
    "node-anthropic": ("node", "node/anthropic_client.mjs"),
}
ONLY = "chat,stream,anthropic_stream,loop,anthropic_loop,responses_loop,parse,responses_stream,models,count_tokens"
OF_LIMITS = "retried,retried_by_router,refused,cost"

ANSWER, THOUGHT_END = "12 + 30 = 42", "answer 42"
CHAIN = [["get_weather", {"city": "Paris"}], ["calculator", {"expression": "17 + 25 + 21"}]]
FULL_IN_S = 2.0  # twenty tokens of 600 a minute
LATE_S = 4.0  # of a machine that is busy, and litellm's router adds up to 0.75 s to whole seconds

Said = Mapping[str, Any]


def got(said: Said, client: str, case: str) -> dict[str, Any]:
    """Return what a client got in a case. Skips where the client cannot run here; fails where it failed."""
    if isinstance(found := said[client], str):
        pytest.skip(found)
    came: dict[str, Any] = found["cases"][case]
    assert "failed" not in came, came["failed"]
    return came


def obstacle(client: str) -> str:
    """Return why this client cannot run here; nothing if it can."""
    program, script = CASES[client]
    if program == "node" and (shutil.which("node") is None or not (SCRIPTS / "node/node_modules/openai").is_dir()):
        return "Node's clients are not installed here: that takes node and npm, then make clients"
    return "" if shutil.which(program) else f"{script} is not run: its environment is made by make clients"


async def run(client: str, url: str, home: Path, turns: asyncio.Semaphore) -> Any:
    """Run a client's script; return what it printed, or why it cannot run. home: with no settings of clients in it."""
    if why := obstacle(client):
        return why
    program, script = CASES[client]
    told = [url, "--key", f"glm-{client}", "--limited", f"glm-{client}-limited", "--only", f"{ONLY},{OF_LIMITS}"]
    if client in ("openai", "anthropic"):  # test_gateway_retries.py has their waits
        told = [url, "--key", f"glm-{client}", "--only", ONLY]
    async with turns:
        process = await asyncio.create_subprocess_exec(
            program,
            str(SCRIPTS / script),
            *told,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"},
        )
        try:
            printed, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, complained.decode()[-4000:]
    return json.loads(printed)


@contextlib.asynccontextmanager
async def a_gateway_of(folder: Path, host: str) -> AsyncIterator[GatewayProcess]:
    """Run a gateway before a worker at a host, and before a group that begins replies and says nothing."""
    (folder / "keys").mkdir()
    limited = [f"{name}-limited-{case}" for name in CASES for case in ("retried", "router", "refused")]
    for name in [*CASES, *limited]:
        key = new_key(f"glm-{name}", datetime.now(UTC), group=None, role=None, expires=None)
        (folder / "keys" / name).write_bytes(item_of(key))
    stalled = ScriptedGroup("stalled-g0", [[FRAMES_HEAD, opened(), STALL] for _ in range(40)])
    async with serving(stalled):
        for name, place, port, management in (
            ("chat-g0", host, 8000, 9090),
            ("stalled-g0", "127.0.0.1", stalled.port, free_port()),
        ):
            group = {"name": name, "host": place, "port": port, "management_port": management}
            (folder / f"{name}.json").write_text(json.dumps({"groups": [group]}))
        limits = {name: {"answerTokensPerMinute": 600} for name in limited}
        plenty = {"requestsPerMinute": 1000, "promptTokensPerMinute": 10**6}
        config = {
            "auth": {"mode": "Keys", "keysFolder": str(folder / "keys")},
            "models": [model_of(MODEL, folder / "chat-g0.json"), model_of("stalled", folder / "stalled-g0.json")],
            "quotas": {"default": plenty, "keys": limits, "prices": {"prompt": "2", "answer": "5"}},
            "usage": {"folder": str(folder / "usage")},
        }
        async with a_gateway_process(folder, **config) as gateway:
            yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What each client printed, and under "usage" what the gateway tells litellm's key."""
    folder, turns = tmp_path_factory.mktemp("clients"), asyncio.Semaphore(2)
    with running_group(folder, gateway_token=TOKEN, group="chat-g0") as group:
        async with a_gateway_of(folder, group.leader.host) as gateway:
            starting = asyncio.create_task(asyncio.to_thread(group.serving))  # scripts import meanwhile
            scripts = [asyncio.create_task(run(name, gateway.url, folder, turns)) for name in CASES]
            await starting
            found = dict(zip(CASES, await asyncio.gather(*scripts), strict=True))
            headers = {"authorization": "Bearer glm-litellm"}
            found["usage"] = (await gateway.http.get(f"{gateway.url}/v1/usage", headers=headers)).json()
            return found


@pytest.mark.parametrize("client", CASES)
def test_a_chat_passes_through_as_it_is(said: Said, client: str) -> None:
    chat, stream = got(said, client, "chat"), got(said, client, "stream")
    assert chat["text"] == stream["text"] == ANSWER
    assert chat["tokens"] == stream["tokens"] > len(ANSWER.split())
    if client != "langchain":  # its ChatOpenAI drops reasoning_content
        assert chat["reasoning"].endswith(THOUGHT_END)
    assert stream["num_chunks"] > 10


LOOPS = [(client, "loop") for client in CASES]
LOOPS += [("litellm", "anthropic_loop"), ("openai", "responses_loop"), ("langchain", "responses_loop")]


@pytest.mark.parametrize(("client", "case"), LOOPS)
def test_a_loop_of_two_calls_ends_with_the_right_answer(said: Said, client: str, case: str) -> None:
    loop = got(said, client, case)
    assert loop["calls"] == CHAIN
    assert "63" in loop["answer"]


@pytest.mark.parametrize("client", ["litellm", "langchain", "openai", "anthropic", "node-openai"])
def test_an_answer_has_the_form_that_was_asked_for(said: Said, client: str) -> None:
    parsed = got(said, client, "parse")
    assert {name: type(value) for name, value in parsed.items()} == {"name": str, "age": int}


@pytest.mark.parametrize("client", ["openai", "node-openai"])
def test_a_streamed_response_is_the_chat(said: Said, client: str) -> None:
    assert got(said, client, "responses_stream")["text"] == ANSWER


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_models_are_those_of_the_gateway(said: Said, client: str) -> None:
    assert got(said, client, "models")["ids"] == [MODEL, "stalled"]


WAITS = [("litellm", "retried"), ("litellm", "retried_by_router")]
WAITS += [(client, "retried") for client in ("langchain", "node-openai", "node-anthropic")]


@pytest.mark.parametrize(("client", "case"), WAITS)
def test_a_limit_is_waited_out_as_told(said: Said, client: str, case: str) -> None:
    retried = got(said, client, case)
    assert retried["role"] == "assistant"
    assert FULL_IN_S <= retried["took_s"] <= FULL_IN_S * 1.2 + LATE_S


def test_a_refusal_has_the_class_that_a_client_has_for_it(said: Said) -> None:
    refused = got(said, "litellm", "refused")
    assert (refused["status"], refused["retry_after"] in ("1", "2")) == (429, True)
    refused = got(said, "node-openai", "refused")
    assert (refused["class"], refused["code"]) == ("RateLimitError", "rate_limit_exceeded")
    refused = got(said, "node-anthropic", "refused")
    assert (refused["class"], refused["type"], refused["has_id"]) == ("RateLimitError", "rate_limit_error", True)


def test_litellm_reads_what_an_answer_costs_and_what_is_left(said: Said) -> None:
    cost = got(said, "litellm", "cost")
    assert cost["cost"] == pytest.approx((2 * cost["prompt_tokens"] + 5 * cost["tokens"]) / 10**6)
    assert 0 < cost["reasoning_tokens"] < cost["tokens"]
    assert cost["headers"]["llm_provider-x-ratelimit-limit-requests"] == "1000"
    assert "x-ratelimit-remaining-tokens" in cost["headers"]


def test_what_a_key_has_used_is_told_with_what_it_costs(said: Said) -> None:
    got(said, "litellm", "cost")
    total = said["usage"]["total"]
    written = total["answer_tokens"] + total["thinking_tokens"]
    assert float(total["cost"]) == pytest.approx((2 * total["prompt_tokens"] + 5 * written) / 10**6)
    assert (total["failed"], total["requests"] > 8) == (0, True)
