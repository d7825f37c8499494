"""The real server as a process of its own, and an engine that answers whatever it is asked, at once."""

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from glm_worker.control import ControlLink
from glm_worker.messages import FromServer, RequestOutput, ServerReady, TokenLogprobs
from glm_worker.request import EngineRequest
from integration.compile_zygote import compile_at
from integration.free_ports import free_port
from integration.server_world import DEADLINE_S, MODEL, TOKENIZER, ScriptedEngine, ServerWorld, token_ids

END = token_ids("<|user|>")
ANSWER = "<think>It is a sum.</think>The answer is 42."
PLAIN = "The answer is 42."
CALL = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>"
LEFT_TOKENS = 1777
_TARGET = "glm_worker.server.main:run_server"


class ServerProcess(ServerWorld):
    """process: of the server. log: the file with all that it wrote."""

    def __init__(
        self, control: ControlLink[FromServer], port: int, folder: Path, process: psutil.Process, log: Path
    ) -> None:
        super().__init__(control, port, folder)
        self.process = process
        self.log = log

    async def in_flight(self) -> dict[str, float]:
        """Return what the server says is running, waiting and in flight."""
        names = ("glm_num_requests_running", "glm_num_requests_waiting", "glm_in_flight_tokens")
        return {name: await self.value(f'{name}{{model="{MODEL}"}}') for name in names}


@contextlib.asynccontextmanager
async def a_server_process(folder: Path, *, target: str = _TARGET, **settings: str) -> AsyncIterator[ServerProcess]:
    """Run the server as the supervisor does. folder: for sockets and the log. settings: GLM_… variables.

    target: module:function that serves.
    """
    ours, theirs = socket.socketpair()
    port = free_port()
    log = folder / "server.log"
    variables = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "GLM_MODEL": f"builtin://{MODEL}",
        "GLM_HOST": "127.0.0.1",
        "GLM_HTTP_PORT": str(port),
        **settings,
    }
    module = "glm_worker.supervisor.children.server_process"
    command = [sys.executable, "-m", module, "--control-fd", str(theirs.fileno())]
    with log.open("wb") as output:
        popen = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            [*command, "--parent", str(os.getpid()), "--target", target],
            env=variables,
            pass_fds=[theirs.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    theirs.close()
    control: ControlLink[FromServer] = await ControlLink.open(ours, FromServer)
    control.send(compile_at())
    try:
        ready = await asyncio.wait_for(control.receive(), DEADLINE_S)
        assert isinstance(ready, ServerReady), (ready, log.read_text())
        world = ServerProcess(control, port, folder, psutil.Process(popen.pid), log)
        try:
            yield world
        finally:
            await world.close()
    finally:
        control.close()
        try:
            await asyncio.to_thread(popen.wait, DEADLINE_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            raise


def plain_answer(request: EngineRequest) -> list[int]:
    return token_ids(ANSWER)


def odd_answers(seed: int) -> Callable[[EngineRequest], list[int]]:
    """Return answers of all kinds: sentences, calls, tags in any order, tokens that are no text together."""
    dice = random.Random(seed)
    vocabulary = [*range(TOKENIZER.vocab_size)] if hasattr(TOKENIZER, "vocab_size") else [*range(512)]
    texts = [
        ANSWER,
        CALL,
        f"{ANSWER}{CALL}{CALL}",
        "",
        "<think>",
        "</think></think>x",
        "<tool_call>get_weather",
        "é€😀",
    ]

    def answer(request: EngineRequest) -> list[int]:
        if dice.random() < 0.25:
            return dice.choices(vocabulary, k=dice.randint(1, 24))
        return token_ids(dice.choice(texts))

    return answer


async def answer_all(
    engine: ScriptedEngine,
    answer: Callable[[EngineRequest], list[int]] = plain_answer,
    left: "asyncio.Queue[EngineRequest] | None" = None,
) -> None:
    """Answer every request in one step, as an engine does that keeps to max_tokens and stop tokens.

    left: gets those that ask for LEFT_TOKENS tokens, which somebody else answers.
    """
    while True:
        request = await engine.submitted.get()
        if left is not None and request.max_tokens == LEFT_TOKENS:
            left.put_nowait(request)
            continue
        await engine.step(_output(request, answer(request)), scheduled=[request.request_id], num_running=0)


def _output(request: EngineRequest, ids: list[int]) -> RequestOutput:
    stops = set(request.stop_token_ids)
    told: list[int] = []
    reason: Any = "length"
    while reason == "length" and len(told) < request.max_tokens:
        for token_id in [*ids, *END]:
            if len(told) == request.max_tokens:
                break
            told.append(token_id)
            if token_id in stops and len(told) > request.min_tokens:
                reason = "stop"
                break
    most = request.num_logprobs
    logprobs = [] if most is None else [TokenLogprobs(-0.5, 1, [(n, -0.5 - n) for n in range(most)]) for _ in told]
    return RequestOutput(request.request_id, told, reason, logprobs)
