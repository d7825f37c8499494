"""Coding agents from npm against the server, as in a terminal without a person. What is judged is the protocol.

Once a model with random weights answers, which says nothing that makes sense, and once an engine whose words the test
decides, so that the agent calls a tool and sends its result back. All that the two sides say goes through a proxy that
keeps it. The requests lie in the folder `recorded` of each test: tests/integration/own_words.py makes cases of them.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.coding_agents import AGENTS, PROGRAMS, Agent
from e2e.recording_proxy import Exchange, Recorded, recording
from glm_cluster.commands import PROXY_VARIABLES
from glm_worker.messages import EngineLimits
from glm_worker.server.text.tokenizer import Tokenizer
from integration.event_streams import told
from integration.pods import ROOT, Group, running_group
from integration.server_world import ScriptedEngine, ServerWorld, a_server

LIMIT_S = 600.0
FILE, TEXT, ANSWER = "notes.txt", "The meeting is on Tuesday.\n", "The meeting is on Tuesday."
LIMITS = EngineLimits(max_model_len=131_072, num_blocks=9_000, block_size=16)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("node") is None or not (PROGRAMS / "opencode").exists(),
        reason="the coding agents are not installed: make e2e-long does it where node and npm are",
    ),
]
each_agent = pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS.keys())


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    """Unlike the other stories: all that these talk to is on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in PROXY_VARIABLES:
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="module")
def model() -> Path:
    """Return the folder of the model with random weights and 131,072 positions, made where it is not there yet."""
    command = [sys.executable, ROOT / "benchmarks/models.py", "--kind", "long-context"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(json.loads(done.stdout.splitlines()[-1])["folder"])


@pytest.fixture(scope="module")
def group(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(tmp_path_factory.mktemp("group"), model=model) as group:
        group.serving()
        yield group


@pytest_asyncio.fixture
async def world(model: Path, tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path, model=str(model)) as world:
        yield world


@each_agent
async def test_an_agent_is_answered_by_a_model(group: Group, agent: Agent, tmp_path: Path) -> None:
    with recording(f"{group.leader.host}:8000") as recorded:
        said = await run(agent, recorded, tmp_path)
    keep(recorded, tmp_path / "recorded")
    assert_well_behaved(agent, recorded)
    assert said.strip(), "the answer, whatever it is"


@each_agent
async def test_an_agent_reads_a_file_by_a_call_and_answers(
    world: ServerWorld, model: Path, agent: Agent, tmp_path: Path
) -> None:
    engine = await world.serve(limits=LIMITS)
    with recording(f"127.0.0.1:{world.port}") as recorded:
        answering = asyncio.create_task(answer(engine, Tokenizer.load(model), agent, tmp_path / "work" / FILE))
        said = await run(agent, recorded, tmp_path)
        answering.cancel()
    keep(recorded, tmp_path / "recorded")
    assert_well_behaved(agent, recorded)
    assert ANSWER in said
    calls = [call for exchange in recorded.exchanges for call in told(exchange.path, exchange.body).calls]
    assert [call.name for call in calls] == [agent.reads[0]]


async def answer(engine: ScriptedEngine, tokenizer: Tokenizer, agent: Agent, file: Path) -> None:
    """Answer every request: by a call that reads the file, unless the prompt has its text or offers no such call."""
    tool, argument = agent.reads
    call = f"<tool_call>{tool}\n<arg_key>{argument}</arg_key>\n<arg_value>{file}</arg_value>\n</tool_call>"
    while True:
        request = await engine.next_request()
        prompt = tokenizer.decode(request.prompt_token_ids)
        if f'"name": "{tool}"' in prompt and TEXT.strip() not in prompt:
            await engine.say(request, f"\n<think>I read it.</think>\n{call}", end="<|observation|>")
        else:
            await engine.say(request, f"\n<think>There it is.</think>\n{ANSWER}", end="<|user|>")


async def run(agent: Agent, recorded: Recorded, folder: Path) -> str:
    """Run the agent in a new home, with a file in its working folder, and return what it wrote to its user."""
    work = folder / "work"
    work.mkdir()
    (work / FILE).write_text(TEXT)
    proxied = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), recorded.url)
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    program, *arguments = agent.command
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / program,
        *arguments,
        env={**own, **proxied, **direct, **agent.environment(recorded.url, folder)},
        cwd=work,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, error.decode()[-4000:]
    return out.decode()


def keep(recorded: Recorded, folder: Path) -> None:
    folder.mkdir()
    for number, exchange in enumerate(recorded.exchanges):
        request = {"path": exchange.path, "headers": exchange.request_headers, "body": exchange.asked}
        (folder / f"{number}.json").write_text(json.dumps(request))


def assert_well_behaved(agent: Agent, recorded: Recorded) -> None:
    """Fail unless every request was answered at once, by a whole and well-formed stream, and nobody else was asked."""
    assert recorded.others == []
    assert recorded.exchanges
    for exchange in recorded.exchanges:
        assert exchange.path.startswith(agent.path)
        assert exchange.status == 200, (exchange.asked.keys(), exchange.body[:1000])
        assert exchange.is_whole
        assert exchange.request_headers.get("x-stainless-retry-count", "0") == "0"
        if exchange.asked.get("stream"):
            assert_answers(exchange)
    bodies = [exchange.request_body for exchange in recorded.exchanges]
    assert len(set(bodies)) == len(bodies), "a request was sent again"


def assert_answers(exchange: Exchange) -> None:
    answer = told(exchange.path, exchange.body)
    assert answer.text or answer.reasoning or answer.calls
    assert answer.num_tokens
