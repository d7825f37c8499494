"""How many requests a second an engine serves before first tokens come late: ours, llama.cpp's, transformers'.

All serve the 172 M model of models.py on this machine with the same threads, weights of the same type and at most 16
requests at once, and get the same work over HTTP from one client: streamed completions (no chat template, so every
prompt is the same text) of conversations that begin as a Poisson process. Each has some turns; a turn's prompt is that
of the turn before, an answer of words that are the same for all, and something new. All begin with one system prompt.
Answers are greedy and have --answer tokens. The next turn comes --think seconds after an answer, on average.

- rate: of requests, the largest of a grid (each a quarter more) whose first tokens come within --ttft seconds at p95.
  A rate at which they do not is tried once more, and the better time counts: the machine is not the same for minutes.
- ITL p99: gaps between events of a stream with text, at the largest rate that is within that for each of two engines.
- prefix cache: the same of ours with GLM_PREFIX_CACHE off.
- CPU time a token: of all processes of each engine, the model's computing and that of prompts with it; and of the
  process of our HTTP server while 8 streams go on and nothing else (goal: that of issue 13). The peers have no process
  that is the server's alone.

An engine that is not there, and why, is told in a line, and left out. Refuses to run beside other load, which makes the
numbers worth nothing; --anyway runs all the same. Ends with a JSON line a number.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from engines.llama_cpp import LlamaCpp, PeerMissing
from engines.machine import Busy, wait_until_quiet
from engines.transformers_serve import additions
from recovery import SERVER, START_LIMIT_S, Question, loopback_address, our_group, percentile

from models import CACHE, KINDS, make, python_texts

GRID, COARSE = 1.25, 3  # a step of the rates, and how many are taken at once while all is well
MAX_RUNNING, CONTEXT = 16, 2048
KV_CACHE_BYTES = 512 * 2**20
SERVER_GOAL_US = 60.0
DRAIN_S = 60.0
OF_TRANSFORMERS_SERVE = ("transformers", "fastapi", "uvicorn", "openai")
NUM_STREAMS, NUM_STREAMED = 8, 400
NUM_TURNS, SYSTEM_CHARACTERS, TURN_CHARACTERS, ANSWER_CHARACTERS = 4, 900, 250, 150
Json = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A server that runs. body: what its requests have beside prompt, limit and temperature."""

    host: str
    port: int
    root: psutil.Process
    body: Json

    def cpu_s(self, name: str = "") -> float:
        """Return the CPU time of its processes, or only of those with this name."""
        total = 0.0
        for process in [self.root, *self.root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                if not name or process.name() == name:
                    times = process.cpu_times()
                    total += times.user + times.system
        return total


@dataclass(frozen=True)
class Engine:
    """name: as told. start: runs it; raises PeerMissing."""

    name: str
    start: Callable[[], contextlib.AbstractContextManager[Served]]


@dataclass
class Seen:
    """Of one rate. ttft_s: by turn, of requests that got a token; num_late: those that got none in time."""

    rate: float
    ttft_s: list[tuple[int, float]] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    num_events: int = 0
    num_tokens: int = 0
    num_failed: int = 0
    num_late: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    def ttft(self, percent: float, first_turn: int = 0) -> float:
        """Return a percentile; a request that got no token counts as the worst there can be."""
        worst = [DRAIN_S] * (self.num_late + self.num_failed)
        return percentile([*(seconds for turn, seconds in self.ttft_s if turn >= first_turn), *worst], percent)

    def gap(self, percent: float) -> float:
        """Return a percentile of the seconds between two events with text of one stream."""
        return percentile(self.gaps_s or [DRAIN_S], percent)

    @property
    def cpu_s_a_token(self) -> float:
        return self.cpu_s / max(1, self.num_tokens)

    @property
    def requests_per_s(self) -> float:
        return len(self.ttft_s) / self.seconds


# Engines


@contextlib.contextmanager
def ours(model: Path, dtype: str, threads: int, *, prefix_cache: bool) -> Iterator[Served]:
    host = loopback_address()
    settings = {
        "GLM_DTYPE": dtype,
        "GLM_THREADS_PER_RANK": str(threads),
        "GLM_PREFIX_CACHE": str(prefix_cache).lower(),
        "GLM_MAX_NUM_SEQS": str(MAX_RUNNING),
        "GLM_MAX_MODEL_LEN": str(CONTEXT),
        "GLM_KV_CACHE_BYTES": str(KV_CACHE_BYTES),
    }
    os.environ.update(settings)
    before = {process.pid for process in psutil.Process().children()}
    with tempfile.TemporaryDirectory() as folder:
        question = Question(f"file://{model}", "cpu", "hello", "")
        with our_group(question, [host], 1, Path(folder)) as group:
            for name in settings:
                del os.environ[name]
            (root,) = (process for process in psutil.Process().children() if process.pid not in before)
            if group.wait_for_answer("", START_LIMIT_S) is None:
                raise SystemExit("our group does not answer")
            yield Served(host, 8000, root, {"model": model.name, "ignore_eos": True})


@contextlib.contextmanager
def llama_server(model: Path, dtype: str, threads: int) -> Iterator[Served]:
    llama = LlamaCpp.get(os.cpu_count() or 1)
    host = loopback_address()
    command = [str(llama.programs / "llama-server"), "-m", str(llama.gguf(model, dtype)), "--host", host]
    command += ["--port", "8000", "-t", str(threads), "-tb", str(threads), "-np", str(MAX_RUNNING)]
    command += ["-c", str(MAX_RUNNING * CONTEXT)]
    with _serving(command, {}, host, "/health") as root:
        yield Served(host, 8000, root, {"model": model.name, "ignore_eos": True})


@contextlib.contextmanager
def transformers_serve(model: Path, dtype: str, threads: int) -> Iterator[Served]:
    program = Path(sys.executable).with_name("transformers")
    if missing := [name for name in OF_TRANSFORMERS_SERVE if importlib.util.find_spec(name) is None]:
        raise PeerMissing(f"it needs packages that are not installed here: {', '.join(missing)}")
    host = loopback_address()
    command = [str(program), "serve", str(model), "--host", host, "--port", "8000", "--device", "cpu"]
    command += ["--dtype", dtype, "--continuous-batching", "--log-level", "error"]
    settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(additions())}
    with _serving(command, settings, host, "/health") as root:
        yield Served(host, 8000, root, {"model": str(model)})


@contextlib.contextmanager
def _serving(command: list[str], settings: dict[str, str], host: str, path: str) -> Iterator[psutil.Process]:
    """Run a server that answers this path with 200 once it serves. Raises PeerMissing with what it said."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline_s = time.monotonic() + START_LIMIT_S
            while not _answers(f"http://{host}:8000{path}"):
                if server.poll() is not None or time.monotonic() > deadline_s:
                    log.seek(0)
                    tail = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise PeerMissing(f"`{' '.join(command)}` does not serve: {''.join(tail)}")
                time.sleep(0.1)
            yield psutil.Process(server.pid)
        finally:
            left = [*psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
            server.kill()
            server.wait()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


# Work


def words(characters: int, random_: random.Random) -> str:
    """Return English of that length."""
    texts = python_texts()
    text = texts[random_.randrange(50)]
    at = random_.randrange(max(1, len(text) - characters))
    return text[at : at + characters]


def conversation(number: int) -> list[str]:
    """Return the prompts of its turns; each begins with the one before, and the first with what all begin with."""
    its = random.Random(number)
    prompt, prompts = words(SYSTEM_CHARACTERS, random.Random(0)), []
    for _ in range(NUM_TURNS):
        prompt += "\nuser: " + words(TURN_CHARACTERS, its) + "\nassistant: "
        prompts.append(prompt)
        prompt += words(ANSWER_CHARACTERS, its)
    return prompts


class Client:
    """Holds conversations, and notes what it sees of them in `seen`."""

    def __init__(self, served: Served, seen: Seen, arguments: argparse.Namespace) -> None:
        self._served = served
        self._seen = seen
        self._num_answer: int = arguments.answer
        self._think_s: float = arguments.think

    async def converse(self, number: int) -> None:
        its = random.Random(-number)
        for turn, prompt in enumerate(conversation(number)):
            if turn:
                await asyncio.sleep(its.expovariate(1 / self._think_s))
            began_s = time.perf_counter()
            try:
                at_s = await self.ask(prompt, self._num_answer)
            except (OSError, EOFError, ValueError) as error:
                self._seen.num_failed += 1
                print(f"failed: {type(error).__name__}: {error}", flush=True)
                return
            except asyncio.CancelledError:
                self._seen.num_late += 1
                raise
            self._seen.ttft_s.append((turn, at_s[0] - began_s))
            self._seen.gaps_s += [after - before for before, after in itertools.pairwise(at_s)]
            self._seen.num_events += len(at_s)
            self._seen.num_tokens += self._num_answer

    async def ask(self, prompt: str, num_answer: int, begun: asyncio.Event | None = None) -> list[float]:
        """Return when each event with text came; `begun` is set at the first. Raises ValueError for no answer."""
        body = {"prompt": prompt, "max_tokens": num_answer, "temperature": 0, "stream": True}
        data = json.dumps({**body, **self._served.body}).encode()
        reader, writer = await asyncio.open_connection(self._served.host, self._served.port)
        try:
            head = "POST /v1/completions HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
            answer_head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in answer_head[:16]:
                raise ValueError(f"{answer_head[:40]!r} {(await reader.read(500))!r}")
            return await self._events(reader, begun or asyncio.Event(), is_chunked=b"chunked" in answer_head)
        finally:
            writer.close()

    async def _events(self, reader: asyncio.StreamReader, begun: asyncio.Event, *, is_chunked: bool) -> list[float]:
        at_s, rest = list[float](), b""
        while data := await (_chunk(reader) if is_chunked else reader.read(2**16)):
            now_s = time.perf_counter()
            *events, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            for event in events:
                if not event.startswith(b"data: {"):
                    continue
                said = json.loads(event.removeprefix(b"data: "))
                if "error" in said:
                    raise ValueError(str(said["error"])[:200])
                if any(choice.get("text") for choice in said.get("choices") or []):
                    at_s.append(now_s)
                    begun.set()
        if not at_s:
            raise ValueError("an answer without text")
        return at_s


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """Return one chunk; the last is empty."""
    size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:size]


async def at_rate(served: Served, rate: float, arguments: argparse.Namespace, seconds: float, first: int) -> Seen:
    """Begin conversations for so long, so that they have this rate of requests, and wait for their ends.

    first: number of the first conversation. No two rates share one, so none finds the other's prompts in a cache.
    """
    seen = Seen(rate)
    client, starts = Client(served, seen, arguments), random.Random(7)
    tasks = list[asyncio.Task[None]]()
    began_s, cpu_s = time.monotonic(), served.cpu_s()
    due_s = began_s
    while (due_s := due_s + starts.expovariate(rate / NUM_TURNS)) < began_s + seconds or not tasks:
        await asyncio.sleep(due_s - time.monotonic())
        tasks.append(asyncio.create_task(client.converse(first + len(tasks))))
    _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    seen.seconds = time.monotonic() - began_s
    seen.cpu_s = served.cpu_s() - cpu_s
    for task in tasks:
        if not task.cancelled():
            task.result()
    return seen


async def sweep(engine: Engine, served: Served, arguments: argparse.Namespace) -> dict[int, Seen]:
    """Return what was seen by step of the grid: ever higher rates until first tokens come late, then those below."""
    results = dict[int, Seen]()

    async def is_well(step: int) -> bool:
        return await is_well_at(step, 10_000 * (2 * step + 1)) or await is_well_at(step, 10_000 * (2 * step + 2))

    async def is_well_at(step: int, first: int) -> bool:
        seen = await at_rate(served, arguments.rate * GRID**step, arguments, arguments.seconds, first)
        ttft_s = seen.ttft(95)
        if step not in results or ttft_s < results[step].ttft(95):
            results[step] = seen
        print(
            f"{engine.name}: {seen.rate:.2f} requests/s begun, {seen.requests_per_s:.2f} answered: TTFT p50"
            f" {seen.ttft(50):.3f} s, p95 {ttft_s:.3f} s, ITL p99 {seen.gap(99) * 1e3:.1f} ms,"
            f" {seen.num_events} events, {seen.num_failed} failed, {seen.num_late} late",
            flush=True,
        )
        return ttft_s <= arguments.ttft and not seen.num_failed

    await at_rate(served, arguments.rate, arguments, arguments.seconds / 4, 0)  # to warm up
    step = 0
    while (was_well := await is_well(step)) and step < arguments.most_steps:
        step += COARSE
    if not was_well:
        for between in range(step - 1, max(step - COARSE, 0), -1):
            if await is_well(between):
                break
    return results


async def server_us_a_token(served: Served, arguments: argparse.Namespace) -> float:
    """Return the CPU time of the server's process, in microseconds a token, while it does nothing but stream."""
    client = Client(served, Seen(0.0), arguments)
    begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
    tasks = [
        asyncio.create_task(client.ask(conversation(-1 - number)[0], NUM_STREAMED, event))
        for number, event in enumerate(begun)
    ]
    await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), START_LIMIT_S)
    began_s, cpu_s = time.perf_counter(), served.cpu_s(SERVER)
    streams = await asyncio.gather(*tasks)
    spent_s = served.cpu_s(SERVER) - cpu_s
    return spent_s / sum(at_s > began_s for stream in streams for at_s in stream) * 1e6


# What came of it


def best(results: dict[int, Seen], ttft_s: float) -> int | None:
    """Return the highest step that is within the bound, None if not even the lowest rate is."""
    well = [step for step, seen in results.items() if seen.ttft(95) <= ttft_s and not seen.num_failed]
    return max(well, default=None)


def lines_of(found: dict[str, dict[int, Seen]], names: list[str], arguments: argparse.Namespace) -> list[Json]:
    """Return the lines: ours against each of the others that ran. names: ours, ours without the cache, the peers."""
    mine, lines = found[names[0]], list[Json]()
    top = best(mine, arguments.ttft)
    rate = 0.0 if top is None else mine[top].rate
    for name in names[1:]:
        if name not in found:
            continue
        other = found[name]
        other_top = best(other, arguments.ttft)
        other_rate = 0.0 if other_top is None else other[other_top].rate
        is_peer = name != names[1]
        goal = 1.0 if is_peer else None
        is_met = rate >= other_rate if is_peer else None
        lines.append(_line(f"requests/s with TTFT p95 <= {arguments.ttft} s", name, rate, other_rate, goal, is_met))
        both = [step for step in mine if step in other and step <= min(top or 0, other_top or 0)]
        if not both:
            continue
        at = max(both)
        its, peers = mine[at], other[at]
        there = f"at {its.rate:.2f} requests/s"
        for metric, of_ours, of_peer in (
            ("TTFT p95 s", its.ttft(95), peers.ttft(95)),
            ("TTFT p50 s of later turns", its.ttft(50, 1), peers.ttft(50, 1)),
            ("ITL p99 s", its.gap(99), peers.gap(99)),
            ("CPU s a token, all processes", its.cpu_s_a_token, peers.cpu_s_a_token),
        ):
            lines.append(
                _line(f"{metric}, {there}", name, of_ours, of_peer, goal, of_ours <= of_peer if is_peer else None)
            )
    return lines


def _line(
    metric: str, against: str | None, own: float, peer: float | None, goal: float | None, is_met: bool | None
) -> Json:
    return {
        "bench": "engine_serving",
        "metric": metric,
        "ours": round(own, 6),
        "against": against,
        "peer": None if peer is None else round(peer, 6),
        "ratio": round(own / peer, 3) if peer else None,
        "goal": goal,
        "met": is_met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1.0, help="the lowest, in requests a second")
    parser.add_argument("--most-steps", type=int, default=24, help="of the grid")
    parser.add_argument("--seconds", type=float, default=40.0, help="in which conversations begin, of each rate")
    parser.add_argument("--ttft", type=float, default=1.0, help="seconds that a first token may take, at p95")
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between an answer and the next turn")
    parser.add_argument("--answer", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--only", help="a part of the names of engines, to look at one")
    parser.add_argument("--anyway", action="store_true", help="run also beside other load")
    arguments = parser.parse_args()
    if not arguments.anyway:
        try:
            wait_until_quiet()
        except Busy as busy:
            raise SystemExit(str(busy)) from busy
    model = CACHE / "bench-172m"
    make(KINDS["bench-172m"], model)
    of = (model, arguments.dtype, arguments.threads)
    engines = [
        Engine("glm-worker", lambda: ours(*of, prefix_cache=True)),
        Engine("glm-worker without prefix cache", lambda: ours(*of, prefix_cache=False)),
        Engine("llama-server", lambda: llama_server(*of)),
        Engine("transformers serve", lambda: transformers_serve(*of)),
    ]
    found, server_us = dict[str, dict[int, Seen]](), 0.0
    for engine in engines:
        if arguments.only is not None and arguments.only not in engine.name:
            continue
        try:
            with engine.start() as served:
                if engine is engines[0]:
                    server_us = asyncio.run(server_us_a_token(served, arguments))
                found[engine.name] = asyncio.run(sweep(engine, served, arguments))
        except PeerMissing as missing:
            print(f"{engine.name} is left out: {missing}", flush=True)
    if engines[0].name not in found:
        return 0
    metric = f"CPU us a token of the HTTP server, {NUM_STREAMS} streams"
    lines = [
        *lines_of(found, [engine.name for engine in engines], arguments),
        _line(metric, None, server_us, None, SERVER_GOAL_US, server_us <= SERVER_GOAL_US),
    ]
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
