"""What a streamed token costs the server's process, in CPU time.

The server of a group as its own process, as api_overhead.py runs it. This program is the engine: it says StepDone with
one token for each stream, a step after the other, and is the client of all streams as well. Only the CPU time of the
server's process counts, so what else the machine does changes little.

Rows: chats with 1, 8 and 64 streams, completions, Anthropic's messages and OpenAI's responses with 64, and 64 chats of
16 stop strings each. The goal holds for each of them. Ends with a JSON line a row.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api_overhead import Server, a_server, percentile

from glm_worker.messages import RequestOutput
from models import CACHE, KINDS, make

GOAL_US = 60.0
STEP_S = 0.020
WARM_UP_STEPS = 20
ROUNDS = 3
Json = dict[str, Any]
SAID = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Row:
    """One kind of stream, and how many of them there are at once."""

    name: str
    num_streams: int
    path: str = "/v1/chat/completions"
    body: Json = field(default_factory=lambda: {"messages": SAID, "thinking": {"type": "disabled"}})


ROWS = (
    Row("chat, 1 stream", 1),
    Row("chat, 8 streams", 8),
    Row("chat, 64 streams", 64),
    Row("chat, 64 streams with 16 stop strings each", 64, body={
        "messages": SAID, "thinking": {"type": "disabled"}, "stop": [f"the end {n}" for n in range(16)],
    }),
    Row("chat, 64 streams with the usage in each chunk", 64, body={
        "messages": SAID,
        "thinking": {"type": "disabled"},
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }),
    Row("completion, 64 streams", 64, "/v1/completions", {"prompt": "hello"}),
    Row("messages, 64 streams", 64, "/v1/messages", {"messages": SAID, "thinking": {"type": "disabled"}}),
    Row("responses, 64 streams", 64, "/v1/responses", {"input": "hello", "reasoning": {"effort": "none"}}),
)  # fmt: skip


async def cpu_us(server: Server, row: Row, num_steps: int) -> float:
    """Return microseconds of the server's CPU time a token."""
    limit = "max_output_tokens" if row.path == "/v1/responses" else "max_tokens"
    data = json.dumps({"model": "m", "stream": True, limit: 20_000, **row.body}).encode()
    head = b"POST %s HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % (row.path.encode(), len(data))
    ids, writers, readers = list[str](), [], []
    came = [0] * row.num_streams  # bytes
    for number in range(row.num_streams):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head + data)
        ids.append((await server.next_request()).request_id)
        writers.append(writer)
        readers.append(asyncio.create_task(_drained(reader, came, number)))
    words = _words(server)
    spent = 0.0
    for number in range(-WARM_UP_STEPS, num_steps):
        if number == 0:
            spent = -_cpu_s(server)
        token = next(words)
        await server.say([RequestOutput(each, [token]) for each in ids])
        await asyncio.sleep(STEP_S)
    spent += _cpu_s(server)
    if min(came) < 20 * num_steps:  # of each token an event
        raise SystemExit(f"{row.name}: a stream got {min(came)} bytes for {num_steps} tokens; this measures nothing")
    for task, stream in zip(readers, writers, strict=True):
        assert not task.done(), "a stream has ended"
        task.cancel()
        stream.close()
    await asyncio.sleep(STEP_S)
    return spent / (num_steps * row.num_streams) * 1e6


def _words(server: Server) -> Iterator[int]:
    ids = server.tokenizer.encode(" The quick brown fox jumps over the lazy dog; 12 + 30 = 42, said he to her.")
    while True:
        yield from ids


async def _drained(reader: asyncio.StreamReader, came: list[int], number: int) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while part := await reader.read(2**16):
            came[number] += len(part)


def _cpu_s(server: Server) -> float:
    """Return what all threads of the server have used, to the nanosecond where the kernel tells it."""
    try:
        tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, ValueError):
        times = server.process.cpu_times()
        return float(times.user + times.system)


async def measure(model: Path, arguments: argparse.Namespace) -> list[Json]:
    found = []
    async with a_server(model) as server:
        for row in ROWS:
            if arguments.only is not None and arguments.only not in row.name:
                continue
            steps = arguments.steps * 64 // max(row.num_streams, 16)
            costs = [await cpu_us(server, row, steps) for _ in range(arguments.rounds)]
            cost = percentile(costs, 50)
            told = ", ".join(f"{each:.1f}" for each in costs)
            print(f"{row.name}: {cost:.1f} us of CPU a token ({told})", flush=True)
            found.append(
                {
                    "bench": "streamed_token",
                    "metric": f"cpu_us_per_token, {row.name}",
                    "ours": round(cost, 1),
                    "goal": GOAL_US,
                    "met": cost <= GOAL_US,
                }
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; default: models.py makes it")
    parser.add_argument("--steps", type=int, default=200, help="of 64 streams; fewer streams get more of them")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", help="a part of the names of rows")
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
