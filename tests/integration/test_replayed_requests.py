"""The requests of coding agents, with our own words in place of theirs: answered, and streamed well-formed.

A case is a file of replayed_requests/. Those of opencode and qwen were recorded while they worked against this server
(tests/e2e/long/test_coding_agents.py, own_words.py); the others are written after what is publicly known of the agents.
The server is a real one on a real port, with a context that holds them; the test is the engine.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from glm_worker.messages import EngineLimits
from glm_worker.models import resolve
from glm_worker.request import EngineRequest
from integration.event_streams import Call, told
from integration.own_words import own_text, with_own_texts, without_texts
from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

CASES = sorted(Path(__file__).with_name("replayed_requests").glob("*.json"))
LIMITS = EngineLimits(max_model_len=131_072, num_blocks=9_000, block_size=16)
THOUGHT, ANSWER = "It is there.", "The meeting is on <Tuesday> & not later."
ARGUMENTS = {"text": 'a "quoted" line\nand </arg_value> in it', "path": "/home/ann/notes.txt"}
Served = tuple[ServerWorld, ScriptedEngine]

by_one_server = pytest.mark.asyncio(loop_scope="module")
each_case = pytest.mark.parametrize("case", CASES, ids=[file.stem for file in CASES])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a glm-nano whose positions hold an agent's prompt, as far as a server can tell."""
    shipped, folder = resolve(f"builtin://{MODEL}"), tmp_path_factory.mktemp("models") / MODEL
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(shipped / file, folder)
    config = json.loads((shipped / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": LIMITS.max_model_len}))
    return str(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, model: str) -> AsyncIterator[Served]:
    async with a_server(tmp_path_factory.mktemp("server"), model=model) as world:
        yield world, await world.serve(limits=LIMITS)


def request_of(case: Path) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return path, headers and body. The recorded ones named the model that they were recorded with."""
    read = json.loads(case.read_text())
    body = with_own_texts(read["body"])
    name = body["model"] if body["model"].startswith("claude-") else MODEL
    return read["path"], read["headers"], {**body, "model": name}


def names_of_tools(body: dict[str, Any]) -> list[str]:
    return [tool.get("function", tool)["name"] for tool in body.get("tools") or ()]


CALLING = [case for case in CASES if (body := request_of(case)[2]).get("stream") and names_of_tools(body)]


def call_of(name: str) -> str:
    arguments = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in ARGUMENTS.items()
    )
    return f"<tool_call>{name}\n{arguments}</tool_call>"


def opening(request: EngineRequest) -> str:
    """Return what an answer begins with that thinks, if this one may."""
    ends_open = request.prompt_token_ids[-1] == token_ids("<think>")[0]
    ends_closed = request.prompt_token_ids[-1] == token_ids("</think>")[0]
    return "" if ends_closed else f"{THOUGHT}</think>\n" if ends_open else f"\n<think>{THOUGHT}</think>\n"


@by_one_server
@each_case
async def test_a_request_of_an_agent_is_answered(served: Served, case: Path) -> None:
    (world, engine), (path, headers, body) = served, request_of(case)
    asked = asyncio.create_task(world.http.post(path, json=body, headers=headers))
    if path.partition("?")[0].endswith("/count_tokens"):
        assert (await asked).json()["input_tokens"] > 1000
        return
    request = await engine.next_request()
    thought = opening(request) if "/completions" not in path or "/chat/" in path else ""
    await engine.say(request, thought + ANSWER, end="<|user|>")
    response = await asked
    assert response.status_code == 200, response.text
    if not body.get("stream"):
        assert ANSWER in response.json()["content"][-1]["text"]
        return
    answer = told(path, response.content)
    assert answer.text == ANSWER
    assert answer.reasoning == (THOUGHT if thought else "")
    assert answer.num_tokens in (len(token_ids(thought + ANSWER)) + 1, None)
    assert not answer.calls


@by_one_server
@pytest.mark.parametrize("case", CALLING, ids=[file.stem for file in CALLING])
async def test_a_request_of_an_agent_is_answered_by_a_call(served: Served, case: Path) -> None:
    (world, engine), (path, headers, body) = served, request_of(case)
    tools = names_of_tools(body)
    asked = asyncio.create_task(world.http.post(path, json=body, headers=headers))
    request = await engine.next_request()
    await engine.say(request, f"{opening(request)}{ANSWER}\n{call_of(tools[-1])}", end="<|observation|>")
    response = await asked
    assert response.status_code == 200, response.text
    answer = told(path, response.content)
    assert answer.text.strip() == ANSWER
    assert answer.calls == [Call(tools[-1], ARGUMENTS)]
    assert answer.ended_by in ("tool_calls", "tool_use", "completed")


@each_case
def test_a_case_has_no_words_but_ours(case: Path) -> None:
    """What own_words.py would take out has been taken out, and what it stands for has the same form."""
    body = json.loads(case.read_text())["body"]
    expanded = with_own_texts(body)
    assert without_texts(expanded) == body
    assert "$text" not in json.dumps(expanded)


@pytest.mark.parametrize("num_chars", [8, 100, 30_000])
def test_an_own_text_has_the_length_that_was_asked_for(num_chars: int) -> None:
    assert len(own_text(num_chars)) == num_chars
