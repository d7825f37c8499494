"""What bodies that are made to hurt do to another client's stream, and what they leave behind in memory.

The server of a group as its own process, with the long-context model of models.py, so that nothing is refused for its
length alone. One stream gets a token each 10 ms. Beside it another process sends one hostile body after the other,
without a pause: a million empty lists, 26,000 tool calls, schemas that refer to themselves, 16 MiB of one string, and
chunks of one byte; of each kind also the most that is read. For each of them the gaps of the stream, p99, against those
of the same stream alone, right before and right after.

Ends with a JSON line for each body, and one for the server's memory after all of them against before. Before are honest
bodies of the two kinds that a server gets all day: one long text, and an agent's hundreds of turns with dozens of
tools. Whoever sends the first body of many small values, Python keeps some MiB of pools for it: a server that had read
nothing but single texts would be too low a start.
"""

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_overhead import GAP_S, Server, Stream, a_server, ask, percentile

from glm_worker.messages import RequestOutput
from models import CACHE, KINDS, make

GAP_GOAL, MEMORY_GOAL = 3.0, 1.15
MIB = 2**20
MOST = 16 * MIB - 1024  # of a body
SETTLE_S = 3.0
HONEST_TEXT, HONEST_AGENT = "100,000 characters that are honest", "300 turns that are honest"
DEEP = b'"tools": [{"type": "function", "function": {"name": "f", "parameters": '
Json = dict[str, Any]


@dataclass(frozen=True)
class Attack:
    """A request, as it goes over the wire."""

    path: str
    body: bytes
    headers: tuple[str, ...] = ()

    @property
    def wire(self) -> bytes:
        length = () if "transfer-encoding: chunked" in self.headers else (f"content-length: {len(self.body)}",)
        lines = [f"POST {self.path} HTTP/1.1", "host: m", *length, *self.headers, "", ""]
        return "\r\n".join(lines).encode() + self.body


def attacks() -> dict[str, Callable[[], Attack]]:
    """Return the hostile bodies by name."""
    return {
        "empty lists, 16 MiB": lambda: _raw("/v1/completions", b'"prompt": [', b"[],", b"[]]"),
        "empty lists, within bounds": lambda: Attack(
            "/v1/completions", json.dumps({"model": "m", "prompt": [[]] * 14_000}).encode()
        ),
        "token ids": lambda: Attack("/v1/completions", json.dumps({"model": "m", "prompt": [7] * 195_000}).encode()),
        "strings": lambda: Attack("/v1/completions", json.dumps({"model": "m", "prompt": ["x"] * 39_000}).encode()),
        "keys, one there twice": lambda: _raw(
            "/v1/chat/completions", b'"metadata": {', b"".join(b'"k%d": 0,' % n for n in range(38_000)), b'"k0": 0}', 1
        ),
        "26,000 tool calls": lambda: _chat(_calls(26_000)),
        "tool calls, within bounds": lambda: _chat(*(_calls(500) for _ in range(8))),
        "messages": lambda: _chat(*({"role": "user", "content": "x"} for _ in range(9_500))),
        "deep parameters": lambda: _raw(
            "/v1/chat/completions", DEEP, b'{"a":', b"{}" + b"}" * 100_000 + b"}}]", 100_000
        ),
        "branching references in tools": lambda: _chat(tools=[_tool(_branching(32))]),
        "wide parameters in tools": lambda: _chat(tools=[{**_tool(_wide(20), f"f{n}")} for n in range(280)]),
        "branching references in response_format": lambda: _chat(response_format=_format(_branching(32))),
        "recursive schema in response_format": lambda: _chat(response_format=_format(_recursive(200))),
        "100,000 stop strings": lambda: _chat(stop=[f"s{n}" for n in range(100_000)]),
        "logit_bias of 38,000": lambda: _chat(logit_bias={str(n): 1 for n in range(38_000)}),
        "16 MiB of one string": lambda: _chat({"role": "user", "content": "x" * MOST}),
        "6 MB of one string": lambda: _chat({"role": "user", "content": "x" * 6_000_000}),
        "6 MB of escapes": lambda: _chat({"role": "user", "content": "\n" * 3_000_000}),
        "16 MiB of spaces": lambda: Attack("/v1/messages", b" " * MOST),
        "gzip": lambda: Attack("/v1/chat/completions", gzip.compress(b"[" * MOST), ("content-encoding: gzip",)),
        "chunks of one byte": lambda: Attack(
            "/v1/chat/completions", b"1\r\nx\r\n" * (MIB // 2) + b"0\r\n\r\n", ("transfer-encoding: chunked",)
        ),
        HONEST_TEXT: lambda: _chat({"role": "user", "content": "12 + 30 is 42. " * 6_667}),
        HONEST_AGENT: lambda: _chat(
            *itertools.chain.from_iterable(_turn(n) for n in range(300)),
            tools=[_tool(_wide(10), f"f{n}") for n in range(60)],
        ),
    }  # fmt: skip


def _chat(*messages: Json, **fields: Any) -> Attack:
    said = list(messages) or [{"role": "user", "content": "x"}]
    return Attack(
        "/v1/chat/completions", json.dumps({"model": "m", "messages": said, "max_tokens": 1, **fields}).encode()
    )


def _raw(path: str, begin: bytes, item: bytes, end: bytes, times: int | None = None) -> Attack:
    count = (MOST - len(begin) - len(end)) // len(item) if times is None else times
    return Attack(path, b'{"model": "m", ' + begin + item * count + end + b"}")


def _calls(count: int) -> Json:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call] * count}


def _turn(number: int) -> tuple[Json, Json]:
    """Return a call of an agent and what came of it."""
    arguments = json.dumps({"path": f"src/part_{number}.py", "text": f"line {number}"})
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "f0", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": f"call_{number}", "content": f"wrote line {number} of the file\n" * 5}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, result


def _tool(schema: Json, name: str = "f") -> Json:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def _format(schema: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}


def _branching(depth: int) -> Json:
    """Return a schema of some hundred bytes that is 2^depth when written out."""
    both = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    defs = {**both, f"d{depth}": {"type": "integer"}}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}


def _wide(count: int) -> Json:
    return {"type": "object", "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(count)}}


def _recursive(count: int) -> Json:
    each = {"type": "object", "properties": {f"p{n}": {"$ref": "#"} for n in range(count)}}
    return {**each, "additionalProperties": False}


def attack(port: int, name: str) -> int:
    """Send one body again and again, until nobody reads what came of it."""
    wire = attacks()[name]().wire
    while True:
        status = _sent(port, wire)
        print(status, flush=True)


def _sent(port: int, wire: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all read
            sock.sendall(wire)
        try:
            head = sock.recv(64)
        except ConnectionResetError:
            return 0
        return int(head.split()[1]) if head else 0


async def gaps(server: Server, num_tokens: int) -> list[float]:
    """Return the gaps of a stream that gets a token each 10 ms. Whoever else asks for something gets an end."""
    token = server.tokenizer.encode(" word")[:1]
    reader, writer = await ask(server, "hello")
    while (request := await server.next_request()).max_tokens == 1:  # of the hostile one
        await server.say([RequestOutput(request.request_id, token, "length")])
    stream = Stream(reader, writer, request)
    seen: list[float] = []

    async def read() -> None:
        while True:
            seen.append(await stream.until(b"\n\n"))

    async def answer_others() -> None:
        while True:
            request = await server.submitted.get()
            await server.say([RequestOutput(request.request_id, token, "length")])

    tasks = [asyncio.create_task(read()), asyncio.create_task(answer_others())]
    due = time.perf_counter()
    for _ in range(num_tokens):
        await server.say([RequestOutput(stream.request.request_id, token)])
        due += GAP_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    for task in tasks:
        task.cancel()
    stream.close()
    return [after - before for before, after in itertools.pairwise(seen)][10:]


async def beside(server: Server, name: str, num_tokens: int) -> tuple[list[float], list[int]]:
    """Return the gaps beside one kind of body, and the statuses of its replies."""
    command = [sys.executable, __file__, "--attack", name, "--port", str(server.port)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - lives as long as this
    assert attacker.stdout is not None
    drained = asyncio.create_task(_answer(server))
    first = await asyncio.to_thread(attacker.stdout.readline)  # it has begun
    drained.cancel()
    found = await gaps(server, num_tokens)
    attacker.kill()
    drained = asyncio.create_task(_answer(server))
    rest = await asyncio.to_thread(attacker.stdout.read)
    drained.cancel()
    attacker.wait()
    return found, [int(line) for line in (first + rest).split("\n") if line]


async def _answer(server: Server) -> None:
    while True:
        request = await server.submitted.get()
        await server.say([RequestOutput(request.request_id, [5], "length")])


def resident(server: Server) -> int:
    return int(server.process.memory_info().rss)


async def measure(model: Path, names: Sequence[str], num_tokens: int) -> list[Json]:
    lines = []
    async with a_server(model) as server:
        await gaps(server, num_tokens)  # warm
        for name in (HONEST_TEXT, HONEST_AGENT):
            await beside(server, name, num_tokens // 3)
        await asyncio.sleep(SETTLE_S)
        before = resident(server)
        for name in names:
            alone = await gaps(server, num_tokens // 2)
            loud, statuses = await beside(server, name, num_tokens)
            quiet = percentile(alone + await gaps(server, num_tokens // 2), 99)
            worst, p99, at = max(loud), percentile(loud, 99), resident(server)
            print(
                f"{name}: {len(statuses)} sent, {sorted(set(statuses))}; gaps p99 {p99 * 1e3:.1f} ms, worst"
                f" {worst * 1e3:.1f} ms; alone {quiet * 1e3:.1f} ms; memory {at / MIB:.0f} MiB",
                flush=True,
            )
            lines.append(_line(f"gap_p99_s beside {name}", p99, quiet, GAP_GOAL, is_met=p99 <= GAP_GOAL * quiet))
        await asyncio.sleep(SETTLE_S)
        after = resident(server)
    lines.append(_line("memory_bytes after the wave", after, before, MEMORY_GOAL, is_met=after <= MEMORY_GOAL * before))
    return lines


def _line(metric: str, ours: float, peer: float, goal: float, *, is_met: bool) -> Json:
    return {
        "bench": "hostile_bodies",
        "metric": metric,
        "ours": round(ours, 6),
        "peer": round(peer, 6),  # the same without hostile bodies
        "ratio": round(ours / peer, 3),
        "goal": goal,
        "met": is_met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; default: models.py makes it")
    parser.add_argument("--tokens", type=int, default=300, help="of the stream, for each body")
    parser.add_argument("--only", help="a part of the names of bodies")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack is not None:
        os.nice(5)  # what is measured is the server, not who sends
        return attack(arguments.port, arguments.attack)
    model = arguments.model
    if model is None:
        model = CACHE / "long-context"
        make(KINDS["long-context"], model)
    names = [name for name in attacks() if arguments.only is None or arguments.only in name]
    for line in asyncio.run(measure(model, names, arguments.tokens)):
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
