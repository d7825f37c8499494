"""What the HTTP server adds to a token, and what a long prompt does to the others.

The server of a group as its own process, with the long-context model of models.py. In place of the ranks this program
is the engine: it says each token over the same socket, in the same messages, and notes when. It is the client as well,
on raw sockets, so both times are of one clock.

- added latency: from the engine's word to the client's event, against the peer: the same word read by a bare socket.
- throughput: token events a second of the server's own CPU time, with 64 streams that all get a token a step.
- long prompt: from a POST of 100,000 characters to the engine's request, less that of a short one.
- gaps of another stream (a token each 10 ms), as p99, while such prompts come, one after the other. The peer is the
  same stream while the same prompts go to a bare process that encodes them: that costs the cores the same, and where
  client, engine, server and encoder have two of them, the gaps grow for that alone. What is beyond is the server's own.
  The ratio to the stream that is alone on the machine is told as well.

Ends with a JSON line a number.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq
import zmq.asyncio

from glm_worker.control import ControlLink
from glm_worker.messages import (
    CompileAt,
    EngineLimits,
    EngineReady,
    EngineServing,
    FirstAnswer,
    FromServer,
    GenerationStarting,
    RequestOutput,
    ServerReady,
    StepDone,
    Submit,
    ToEngine,
)
from glm_worker.request import EngineRequest
from glm_worker.server.text.tokenizer import Tokenizer
from models import CACHE, KINDS, make

LATENCY_GOAL_S, THROUGHPUT_GOAL, PROMPT_GOAL_S, GAP_GOAL = 0.3e-3, 1500.0, 0.150, 1.2
GAP_S = 0.010
REPOSITORY = Path(__file__).resolve().parents[1]
WARM_UP = 50
ROUNDS = 3
GIVE_UP_S = 60.0
LIMITS = EngineLimits(max_model_len=131_072, num_blocks=16_384, block_size=16, max_num_seqs=64)
TARGET = "glm_worker.server.main:run_server"


@dataclass
class Server:
    """The server's process, the engine's socket, and the requests that came over it."""

    port: int
    process: psutil.Process
    engine: Any  # zmq socket
    tokenizer: Tokenizer
    submitted: asyncio.Queue[EngineRequest] = field(default_factory=asyncio.Queue)
    step: int = 0

    async def say(self, outputs: Sequence[RequestOutput]) -> float:
        """Send one step and return when."""
        self.step += 1
        done = StepDone(
            generation="g",
            outputs=list(outputs),
            step=self.step,
            began_s=time.monotonic(),
            num_running=len(outputs),
            num_waiting=0,
            num_tokens_waiting=0,
            kv_blocks_used=1,
            num_preemptions=0,
        )
        frame = msgspec.msgpack.encode(done)
        at = time.perf_counter()
        await self.engine.send(frame)
        return at

    async def follow(self) -> None:
        while True:
            message = msgspec.msgpack.decode(await self.engine.recv(), type=ToEngine)
            if isinstance(message, Submit):
                self.submitted.put_nowait(message.request)

    async def next_request(self) -> EngineRequest:
        return await asyncio.wait_for(self.submitted.get(), GIVE_UP_S)


def _compile_at() -> CompileAt:
    """Return where the tests' own zygote forks what compiles grammars: there is no supervisor here."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    found = import_module("integration.compile_zygote").compile_at()
    sys.path.pop(0)
    assert isinstance(found, CompileAt)
    return found


@contextlib.asynccontextmanager
async def a_server(model: Path) -> AsyncIterator[Server]:
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "GLM_MODEL": str(model),
        "GLM_HOST": "127.0.0.1",
        "GLM_HTTP_PORT": str(port),
        "GLM_SERVED_MODEL_NAME": "m",
    }
    module = "glm_worker.supervisor.children.server_process"
    command = [sys.executable, "-m", module, "--control-fd", str(theirs.fileno())]
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [*command, "--parent", str(os.getpid()), "--target", TARGET],
        env={**os.environ, **settings},
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    control: ControlLink[FromServer] = await ControlLink.open(ours, FromServer)
    context = zmq.asyncio.Context()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/engine.sock"
        engine = context.socket(zmq.PAIR)
        engine.connect(endpoint)
        try:
            assert isinstance(await asyncio.wait_for(control.receive(), GIVE_UP_S), ServerReady)
            control.send(_compile_at())
            control.send(GenerationStarting("g", endpoint))
            await engine.send(msgspec.msgpack.encode(EngineReady(generation="g", limits=LIMITS, load_seconds=0.0)))
            while not isinstance(await asyncio.wait_for(control.receive(), GIVE_UP_S), EngineServing | FirstAnswer):
                pass
            server = Server(port, psutil.Process(process.pid), engine, Tokenizer.load(model))
            follower = asyncio.create_task(server.follow())
            yield server
            follower.cancel()
        finally:
            control.close()
            context.destroy(linger=0)
            await asyncio.to_thread(process.wait, GIVE_UP_S)


class Stream:
    """A streaming chat on a raw socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: EngineRequest) -> None:
        self.reader = reader
        self.writer = writer
        self.request = request

    @classmethod
    async def open(cls, server: Server, text: str = "hello") -> "Stream":
        reader, writer = await ask(server, text)
        return cls(reader, writer, await server.next_request())

    async def until(self, mark: bytes) -> float:
        """Return when this has come."""
        await asyncio.wait_for(self.reader.readuntil(mark), GIVE_UP_S)
        return time.perf_counter()

    def close(self) -> None:
        self.writer.close()


async def ask(server: Server, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    data = json.dumps(_body(text)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**22)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
    return reader, writer


def _body(text: str) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 20_000}
    return {**body, "thinking": {"type": "disabled"}, "ignore_eos": True}


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def latencies(server: Server, num_tokens: int) -> list[float]:
    """Return seconds from the engine's word to the client's event, one stream, a token at a time."""
    stream = await Stream.open(server)
    seconds = []
    for number in range(num_tokens):
        word = f" w{number} "
        at = await server.say([RequestOutput(stream.request.request_id, server.tokenizer.encode(word))])
        seconds.append(await stream.until(f"w{number}".encode()) - at)
        await stream.until(b"\n\n")
    stream.close()
    return seconds[WARM_UP:]


async def bare_latencies(num_tokens: int) -> list[float]:
    """Return the same for a process that only reads the socket and writes what came to a TCP connection."""
    code = (
        "import socket, sys, zmq\n"
        "engine = zmq.Context().socket(zmq.PAIR); engine.bind(sys.argv[1])\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
        "client, _ = listener.accept(); client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "while True:\n client.sendall(engine.recv() + b'\\n\\n')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = zmq.asyncio.Context()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/bare.sock"
        process = subprocess.Popen([sys.executable, "-c", code, endpoint, str(port)])  # noqa: ASYNC220
        engine = context.socket(zmq.PAIR)
        engine.connect(endpoint)
        reader, writer = await _connected(port)
        seconds = []
        for _ in range(num_tokens):
            at = time.perf_counter()
            await engine.send(b"x" * 150)
            await reader.readuntil(b"\n\n")
            seconds.append(time.perf_counter() - at)
        writer.close()
        process.kill()
        process.wait()
        context.destroy(linger=0)
    return seconds[WARM_UP:]


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def throughput(server: Server, num_streams: int, num_steps: int) -> float:
    """Return token events a second of the server's CPU time."""
    streams = [await Stream.open(server) for _ in range(num_streams)]
    token = server.tokenizer.encode(" word")[:1]

    async def drain(stream: Stream) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while await stream.reader.read(2**16):
                pass

    readers = [asyncio.create_task(drain(stream)) for stream in streams]
    cpu = _cpu_s(server.process)
    for _ in range(num_steps):
        await server.say([RequestOutput(stream.request.request_id, token) for stream in streams])
        await asyncio.sleep(0.02)  # a step of the engine
    seconds = _cpu_s(server.process) - cpu
    for reader, stream in zip(readers, streams, strict=True):
        reader.cancel()
        stream.close()
    return num_streams * num_steps / seconds


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def prompt_seconds(server: Server, text: str, times: int) -> float:
    """Return the median time from a POST to the engine's request."""
    seconds = []
    for _ in range(times):
        at = time.perf_counter()
        _, writer = await ask(server, text)
        await server.next_request()
        seconds.append(time.perf_counter() - at)
        writer.close()
    return percentile(seconds, 50)


Prompts = Callable[[asyncio.Event], Awaitable[None]]
"""Asks for something again and again, until the event is set."""


async def gaps(server: Server, num_tokens: int, prompts: Prompts | None = None) -> list[float]:
    """Return the gaps of a stream that gets a token each 10 ms, beside prompts that come meanwhile."""
    stream = await Stream.open(server)
    token = server.tokenizer.encode(" word")[:1]
    seen: list[float] = []
    over = asyncio.Event()

    async def read() -> None:
        while True:
            seen.append(await stream.until(b"\n\n"))

    reading = asyncio.create_task(read())
    asking = None if prompts is None else asyncio.ensure_future(prompts(over))
    due = time.perf_counter()
    for _ in range(num_tokens):
        await server.say([RequestOutput(stream.request.request_id, token)])
        due += GAP_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    reading.cancel()
    over.set()
    if asking is not None:
        await asking
    stream.close()
    await asyncio.gather(reading, return_exceptions=True)  # wait_for may have swallowed that it was cancelled
    return [after - before for before, after in itertools.pairwise(seen)][WARM_UP:]


def of_the_server(server: Server, text: str) -> Prompts:
    async def ask_again(over: asyncio.Event) -> None:
        while not over.is_set():
            _, writer = await ask(server, text)
            await server.next_request()
            writer.close()

    return ask_again


@contextlib.asynccontextmanager
async def bare_prompts(model: Path, text: str) -> AsyncIterator[Prompts]:
    """Yield the same for a process that only reads the prompt and answers with its token ids."""
    code = (
        "import json, socket, sys\n"
        "from pathlib import Path\n"
        "import msgspec\n"
        "from glm_worker.server.text.tokenizer import Tokenizer\n"
        "tokenizer = Tokenizer.load(Path(sys.argv[1]))\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
        "while True:\n"
        " client, _ = listener.accept()\n"
        " text = json.loads(client.makefile('rb').readline())['messages'][0]['content']\n"
        " client.sendall(msgspec.msgpack.encode(tokenizer.encode_prompt(text)))\n"
        " client.close()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", code, str(model), str(port)])  # noqa: ASYNC220
    _, writer = await _connected(port)
    writer.write(json.dumps(_body("warm")).encode() + b"\n")

    async def ask_again(over: asyncio.Event) -> None:
        while not over.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
            writer.write(json.dumps(_body(text)).encode() + b"\n")
            msgspec.msgpack.decode(await asyncio.wait_for(reader.read(), GIVE_UP_S), type=list[int])
            writer.close()

    yield ask_again
    writer.close()
    process.kill()
    process.wait()


async def measure(model: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    long = ("The quick brown fox jumps over the lazy dog; 12 + 30 = 42, said he. " * 1600)[:100_000]
    async with a_server(model) as server:
        ours = percentile(await latencies(server, arguments.tokens), 50)
        bare = percentile(await bare_latencies(arguments.tokens), 50)
        rate = await throughput(server, 64, arguments.steps)
        short_s, long_s = await prompt_seconds(server, "hello", 20), await prompt_seconds(server, long, 20)
        found: dict[str, list[float]] = {"alone": [], "server": [], "bare": []}
        async with bare_prompts(model, long) as of_bare:
            for _ in range(ROUNDS):  # what else the machine does is the same for all three
                found["alone"] += await gaps(server, arguments.tokens)
                found["server"] += await gaps(server, arguments.tokens, of_the_server(server, long))
                found["bare"] += await gaps(server, arguments.tokens, of_bare)
        quiet, loud, busy = (percentile(found[each], 99) for each in ("alone", "server", "bare"))
    print(f"a token: {ours * 1e3:.3f} ms through the server, {bare * 1e3:.3f} ms through a bare socket")
    print(f"64 streams: {rate:.0f} token events a second of CPU time")
    print(f"a prompt: {short_s * 1e3:.1f} ms short, {long_s * 1e3:.1f} ms of 100,000 characters")
    print(
        f"gaps of a stream, p99: {quiet * 1e3:.1f} ms alone, {loud * 1e3:.1f} ms beside long prompts, {busy * 1e3:.1f}"
        " ms when another process encodes them"
    )
    return [
        _line("added_latency_per_token_p50_s", ours - bare, bare, LATENCY_GOAL_S, is_met=ours - bare <= LATENCY_GOAL_S),
        _line("token_events_per_cpu_second", rate, None, THROUGHPUT_GOAL, is_met=rate >= THROUGHPUT_GOAL),
        _line(
            "prompt_of_100k_characters_s",
            long_s - short_s,
            short_s,
            PROMPT_GOAL_S,
            is_met=long_s - short_s <= PROMPT_GOAL_S,
        ),
        _line("gap_p99_beside_long_prompts_s", loud, busy, GAP_GOAL, is_met=loud <= GAP_GOAL * busy),
        _line("gap_p99_beside_long_prompts_to_alone_s", loud, quiet, None, is_met=None),
    ]


def _line(metric: str, ours: float, peer: float | None, goal: float | None, *, is_met: bool | None) -> dict[str, Any]:
    ratio = None if not peer else round(ours / peer, 3)
    return {
        "bench": "api_overhead",
        "metric": metric,
        "ours": round(ours, 6),
        "peer": None if peer is None else round(peer, 6),
        "ratio": ratio,
        "goal": goal,
        "met": is_met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; default: models.py makes it")
    parser.add_argument("--tokens", type=int, default=1000, help="of each stream")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    model = arguments.model
    if model is None:
        model = CACHE / "long-context"
        make(KINDS["long-context"], model)
    for line in asyncio.run(measure(model, arguments)):
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
