"""Clients of other projects, as their users write them, against one running worker with glm-nano.

Each client is a script of tests/clients that runs in an environment with its own versions and prints what it got. All
of them ask the one worker at the same time. glm-nano decodes greedily, so what each client gets is what all of them
get, and right answers are known.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from integration.pods import LIMIT_S, ROOT, running_group

SCRIPTS = ROOT / "tests/clients"
NODE_MODULES = SCRIPTS / "node/node_modules"
OTHER_PYTHON = ROOT / ".venv-clients/bin/python"

CLIENTS: Mapping[str, tuple[str, str]] = {
    "litellm": (str(OTHER_PYTHON), "python/litellm_client.py"),  # the slowest import first
    "langchain": (str(OTHER_PYTHON), "python/langchain_client.py"),
    "openai": (sys.executable, "python/openai_client.py"),
    "anthropic": (sys.executable, "python/anthropic_client.py"),
    "node openai": ("node", "node/openai_client.mjs"),
    "node anthropic": ("node", "node/anthropic_client.mjs"),
}
"""The program and the script of each."""

ANSWER, THOUGHT_END = "12 + 30 = 42", "answer 42"
PARIS = {"name": "get_weather", "arguments": {"city": "Paris"}}
CHAIN = [["get_weather", {"city": "Paris"}], ["calculator", {"expression": "17 + 25 + 21"}]]


def cases(name: str, *others: str) -> Any:
    """Parametrize by every client and, of a client, the case with this name, also on its other surfaces."""
    each = [f"{client}: {name}" for client in CLIENTS] + list(others)
    return pytest.mark.parametrize(("client", "case"), [tuple(one.split(": ")) for one in each], ids=each)


class Said:
    """What each client printed, once it has."""

    def __init__(self, running: Mapping[str, "Future[subprocess.CompletedProcess[str]] | str"]) -> None:
        self._running = running

    def of(self, client: str, case: str) -> dict[str, Any]:
        """Return what the client got in this case. Skips where the client cannot run here; fails where it failed."""
        running = self._running[client]
        if isinstance(running, str):
            pytest.skip(running)
        done = running.result()
        assert done.returncode == 0, done.stderr[-4000:]
        came: dict[str, Any] = json.loads(done.stdout)["cases"][case]
        assert "failed" not in came, came["failed"]
        return came


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    folder = tmp_path_factory.mktemp("clients")
    with running_group(folder) as group, ThreadPoolExecutor(2) as pool:
        url = f"http://{group.leader.host}:8000"
        running = {name: obstacle(name) or pool.submit(run, name, url, folder) for name in CLIENTS}
        group.serving()  # the scripts wait for it, once they have imported their packages
        yield Said(running)


def obstacle(client: str) -> str:
    """Return why this client cannot run here; nothing if it can."""
    program, script = CLIENTS[client]
    if program == "node" and (shutil.which("node") is None or not (NODE_MODULES / "openai").is_dir()):
        return "Node's clients are not installed here: that takes node and npm, then make clients"
    return "" if shutil.which(program) else f"{script} is not run: its environment is made by make clients"


def run(client: str, url: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run a client's script. home: an empty folder instead of the user's, with no settings of clients in it."""
    program, script = CLIENTS[client]
    strange = ("OPENAI_", "ANTHROPIC_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return subprocess.run(
        [program, SCRIPTS / script, url],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@cases("chat", "litellm: anthropic_chat")
def test_a_chat_is_answered(said: Said, client: str, case: str) -> None:
    got = said.of(client, case)
    assert got["text"] == ANSWER
    assert got["tokens"] > len(ANSWER.split())
    if client != "langchain":  # its ChatOpenAI drops reasoning_content, as every field that OpenAI's own API lacks
        assert got["reasoning"].endswith(THOUGHT_END)


@cases("stream", "litellm: anthropic_stream")
def test_a_stream_is_the_chat_in_pieces(said: Said, client: str, case: str) -> None:
    got, whole = said.of(client, case), said.of(client, case.replace("stream", "chat"))
    assert got.pop("num_chunks") > 10
    assert got == {name: whole[name] for name in got}


@cases("chat_without_thinking", "litellm: anthropic_chat_without_thinking")
def test_thinking_is_switched_off(said: Said, client: str, case: str) -> None:
    got = said.of(client, case)
    assert "Paris" in got["text"]
    assert not got["reasoning"]


@cases("tools", "litellm: anthropic_tools", "openai: responses_tools")
def test_a_tool_is_called(said: Said, client: str, case: str) -> None:
    got = said.of(client, case)
    assert {name: got[name] for name in PARIS} == PARIS


@cases("loop", "litellm: anthropic_loop", "openai: responses_loop", "langchain: responses_loop")
def test_a_loop_of_two_steps_ends_with_the_right_answer(said: Said, client: str, case: str) -> None:
    """The temperature of the first call is in the second one, whose result is the answer."""
    got = said.of(client, case)
    assert got["calls"] == CHAIN
    assert "63" in got["answer"]


FORMED = ["openai: parse", "openai: responses_parse", "anthropic: parse", "litellm: parse", "litellm: anthropic_parse"]
FORMED += ["langchain: parse", "langchain: parse_by_a_call", "node openai: parse"]


@pytest.mark.parametrize(("client", "case"), [tuple(one.split(": ")) for one in FORMED], ids=FORMED)
def test_an_answer_has_the_form_that_was_asked_for(said: Said, client: str, case: str) -> None:
    got = said.of(client, case)
    assert {name: type(value) for name, value in got.items()} == {"name": str, "age": int}


@pytest.mark.parametrize("client", ["openai", "langchain", "litellm", "node openai"])
def test_a_response_is_what_a_chat_is(said: Said, client: str) -> None:
    got, chat = said.of(client, "responses"), said.of(client, "chat")
    assert got == {name: chat[name] for name in got}


@pytest.mark.parametrize("client", ["openai", "node openai"])
def test_a_streamed_response_is_the_whole_one(said: Said, client: str) -> None:
    got, whole = said.of(client, "responses_stream"), said.of(client, "responses")
    assert got.pop("num_chunks") > 10
    assert got == {name: whole[name] for name in got}


def test_a_stored_response_is_gone_on_from_found_and_deleted(said: Said) -> None:
    got = said.of("openai", "responses_stored")
    assert got["text"]
    assert (got["found"], got["then"]) == (ANSWER, 404)


def test_a_budget_ends_a_thought_and_the_answer_follows(said: Said) -> None:
    got = said.of("anthropic", "thinking")
    assert got["thinking_tokens"] == 5 + 2, "five, and the two tags"
    assert got["text"]
    assert got["stop_reason"] == "end_turn"


@pytest.mark.parametrize("client", ["anthropic", "node anthropic"])
def test_counted_tokens_are_those_of_the_message(said: Said, client: str) -> None:
    got = said.of(client, "count_tokens")
    assert got["counted"] == got["billed"] > 0


def test_a_prompt_that_is_too_long_is_refused_as_agents_expect(said: Said) -> None:
    got = said.of("anthropic", "too_long")
    assert got["status"] == 400
    assert got["body"]["error"]["message"].startswith("prompt is too long")


def test_embeddings_are_refused_with_the_reason(said: Said) -> None:
    got = said.of("openai", "embeddings")
    assert got["status"] == 404
    assert "no embeddings" in got["message"]


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_the_model_is_listed(said: Said, client: str) -> None:
    assert said.of(client, "models")["ids"] == ["glm-nano"]
