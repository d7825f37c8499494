"""A real HTTP server on a real port, with a supervisor and an engine whose every word the test decides."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import openai
import zmq
import zmq.asyncio

from glm_worker.control import ControlLink
from glm_worker.messages import (
    Cancel,
    Drain,
    Drained,
    EngineLimits,
    EngineReady,
    EngineServing,
    FirstAnswer,
    FromServer,
    GenerationEnded,
    GenerationStarting,
    MetricsReply,
    MetricsRequest,
    Policy,
    RequestOutput,
    ServerReady,
    SetPolicy,
    SetSlo,
    Slo,
    SloClass,
    StepDone,
    Submit,
    ToEngine,
    Unavailable,
)
from glm_worker.models import resolve
from glm_worker.request import EngineRequest
from glm_worker.server.main import serve
from glm_worker.server.text.tokenizer import Tokenizer
from glm_worker.settings import WorkerSettings
from integration.compile_zygote import compile_at
from integration.free_ports import free_port
from integration.metrics_text import series_value, series_values
from integration.no_tls import NO_TLS

DEADLINE_S = 60.0  # an upper bound for machines under load; nothing here takes as long
MODEL = "glm-nano"
TOKENIZER = Tokenizer.load(resolve(f"builtin://{MODEL}"))
LIMITS = EngineLimits(max_model_len=2048, num_blocks=256, block_size=16)
Message = TypeVar("Message")


def token_ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


class ScriptedEngine:
    """Rank 0 of one generation: it takes what is submitted, and says what the test tells it to say."""

    def __init__(self, context: zmq.asyncio.Context, generation: str, endpoint: str) -> None:
        self.generation = generation
        self.submitted: asyncio.Queue[EngineRequest] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self._step = 0
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._reader = asyncio.create_task(self._read())

    async def ready(self, limits: EngineLimits = LIMITS) -> None:
        await self._send(EngineReady(generation=self.generation, limits=limits, load_seconds=0.1))

    async def next_request(self) -> EngineRequest:
        return await asyncio.wait_for(self.submitted.get(), DEADLINE_S)

    async def next_cancelled(self) -> str:
        return await asyncio.wait_for(self.cancelled.get(), DEADLINE_S)

    async def begin(self, *requests: EngineRequest) -> None:
        """Say that these are computed from now on."""
        await self.step(scheduled=[request.request_id for request in requests])

    async def say(self, request: EngineRequest, text: str, *, end: str | None = None, finish: Any = None) -> None:
        """Sample the tokens of a text, one a step. end: the stop token that then ends the answer."""
        ids = token_ids(text)
        for number, token_id in enumerate(ids):
            is_last = number == len(ids) - 1 and end is None
            await self.step(RequestOutput(request.request_id, [token_id], finish if is_last else None))
        if end is not None:
            await self.step(RequestOutput(request.request_id, token_ids(end), "stop"))

    async def step(self, *outputs: RequestOutput, generation: str | None = None, **gauges: Any) -> None:
        self._step += 1
        values = {
            "began_s": time.monotonic(),
            "num_running": 1,
            "num_waiting": 0,
            "num_tokens_waiting": 0,
            "kv_blocks_used": 1,
            "num_preemptions": 0,
        }
        done = StepDone(
            generation=generation or self.generation, outputs=list(outputs), step=self._step, **{**values, **gauges}
        )
        await self._send(done)

    async def close(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self._socket.close(linger=1000)  # what was said arrives, as of a process that is killed

    async def _send(self, message: msgspec.Struct) -> None:
        await self._socket.send(msgspec.msgpack.encode(message))

    async def _read(self) -> None:
        while True:
            message = msgspec.msgpack.decode(await self._socket.recv(), type=ToEngine)
            assert message.generation == self.generation
            match message:
                case Submit(request=request):
                    self.submitted.put_nowait(request)
                case Cancel(request_id=request_id):
                    self.cancelled.put_nowait(request_id)


class ServerWorld:
    """The server, its supervisor (this class) and clients of it."""

    def __init__(self, control: ControlLink[FromServer], port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.http = httpx.AsyncClient(base_url=self.url, timeout=DEADLINE_S, verify=NO_TLS)
        self.openai = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key="none",
            max_retries=0,
            timeout=DEADLINE_S,
            http_client=httpx.AsyncClient(verify=NO_TLS),
        )
        self._control = control
        self._folder = folder
        self._context = zmq.asyncio.Context()
        self._engines: list[ScriptedEngine] = []
        self.answered: list[str] = []  # generations that have finished a request, as the server said

    async def start_generation(self, generation: str) -> ScriptedEngine:
        """Start a generation whose engine is loading."""
        # Of its own, also where a test gives a name twice: an engine that connects before the server has bound the path
        # again may still reach the listener of before, which takes its first word along
        endpoint = f"ipc://{self._folder}/{len(self._engines)}-{generation}.sock"
        self._control.send(GenerationStarting(generation=generation, endpoint=endpoint))
        engine = ScriptedEngine(self._context, generation, endpoint)
        self._engines.append(engine)
        return engine

    async def serve(self, generation: str = "g-1", limits: EngineLimits = LIMITS) -> ScriptedEngine:
        """Start a generation and wait until the server has seen that it is ready."""
        engine = await self.start_generation(generation)
        await engine.ready(limits)
        assert await self.told(EngineServing) == EngineServing(generation)
        return engine

    async def kill(self, engine: ScriptedEngine, cause: str = "rank 1 was killed") -> None:
        """End a generation, and wait until the server knows: it answers what it is asked in order."""
        await engine.close()
        self._control.send(GenerationEnded(generation=engine.generation, cause=cause))
        await self.metrics()

    async def kill_computing(
        self, engine: ScriptedEngine, cause: str = "rank 1 was killed", *, request: EngineRequest | None = None
    ) -> None:
        """End a generation that computes a request, by default the next: that one is to blame where it is on trial.

        The server knows of the step before it knows of the end, which comes to it another way.
        """
        num_steps = sum(series_values(await self.metrics(), "glm_engine_steps_total"))
        await engine.begin(request or await engine.next_request())
        async with asyncio.timeout(DEADLINE_S):
            while sum(series_values(await self.metrics(), "glm_engine_steps_total")) == num_steps:
                pass
        await self.kill(engine, cause)

    async def metrics(self) -> str:
        self._control.send(MetricsRequest(id=5))
        reply = await self.told(MetricsReply)
        assert reply.id == 5
        return reply.text

    async def promise(self, *classes: SloClass) -> None:
        """Put promises, and wait until the server measures by them."""
        self._control.send(SetSlo(Slo(list(classes))))
        await self.metrics()

    async def policy(self, policy: Policy) -> None:
        """Put a policy, and wait until the server goes by it."""
        self._control.send(SetPolicy(policy))
        await self.metrics()

    async def value(self, series: str) -> float:
        """Return the value of the one series with this name and these labels, whatever others it has."""
        return series_value(await self.metrics(), series)

    async def until(self, series: str, value: float) -> None:
        """Wait until a metric has this value."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.value(series) != value:
                pass

    async def unavailable(self, reason: str, retry_after_s: int) -> None:
        """Say that no generation will serve soon, and wait until the server knows."""
        self._control.send(Unavailable(reason=reason, retry_after_s=retry_after_s))
        await self.metrics()

    def drain(self, accept_s: float, deadline_s: float) -> None:
        self._control.send(Drain(accept_s=accept_s, deadline_s=deadline_s))

    async def drained(self) -> Drained:
        return await self.told(Drained)

    def hang_up(self) -> None:
        """Die, as far as the server can tell."""
        self._control.close()

    async def told(self, kind: type[Message]) -> Message:
        """Return the server's next word, which must be of this kind; that a generation has answered is noted."""
        while isinstance(message := await asyncio.wait_for(self._control.receive(), DEADLINE_S), FirstAnswer):
            self.answered.append(message.generation)
        assert isinstance(message, kind), message
        return message

    async def close(self) -> None:
        await self.http.aclose()
        await self.openai.close()
        for engine in self._engines:
            await engine.close()
        self._context.destroy(linger=0)
        self._control.close()


@contextlib.asynccontextmanager
async def a_server(folder: Path, **settings: Any) -> AsyncIterator[ServerWorld]:
    """Run a server in this loop. folder: for its sockets. settings: also another model than the shipped one."""
    ours, theirs = socket.socketpair()
    values = WorkerSettings(
        **{"model": f"builtin://{MODEL}", "host": "127.0.0.1", "http_port": free_port(), **settings}
    )
    server = asyncio.create_task(serve(values, theirs))
    control: ControlLink[FromServer] = await ControlLink.open(ours, FromServer)
    control.send(compile_at())
    ready = asyncio.create_task(control.receive())
    await asyncio.wait({server, ready}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(ready.result(), ServerReady)
    world = ServerWorld(control, values.http_port, folder)
    try:
        yield world
    finally:
        await world.close()  # closing the control link is what ends a server
        await asyncio.wait_for(server, DEADLINE_S)
