"""An honest stream beside hostile requests: it gets a token every 10 ms, and notes when each has come."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fuzz.server_process import LEFT_TOKENS, ServerProcess
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, ScriptedEngine, token_ids

PERIOD_S = 0.010


@dataclass
class Gaps:
    """Seconds between two tokens of a stream, of all streams of this victim."""

    seconds: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def worst(self) -> float:
        return max(self.seconds)


@contextlib.asynccontextmanager
async def a_victim(
    world: ServerProcess, engine: ScriptedEngine, left: "asyncio.Queue[EngineRequest]"
) -> AsyncIterator[Gaps]:
    """Keep one stream running, and a new one when that has ended."""
    gaps = Gaps()
    running = asyncio.create_task(_run(world, engine, left, gaps))
    try:
        yield gaps
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _run(world: ServerProcess, engine: ScriptedEngine, left: "asyncio.Queue[EngineRequest]", gaps: Gaps) -> None:
    while True:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "count"}], "stream": True}
        data = json.dumps({**body, "max_tokens": LEFT_TOKENS, "thinking": {"type": "disabled"}}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: glm\r\ncontent-length: %d\r\n\r\n" % len(data) + data
        )
        request = await left.get()
        seen: list[float] = []
        reading = asyncio.create_task(_read(reader, seen))
        try:
            token, due = token_ids(" a")[:1], time.perf_counter()
            for number in range(LEFT_TOKENS):
                is_last = number == LEFT_TOKENS - 1
                await engine.step(RequestOutput(request.request_id, token, "length" if is_last else None))
                due += PERIOD_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
        finally:
            reading.cancel()
            writer.close()
            gaps.seconds += [after - before for before, after in itertools.pairwise(seen[5:])]


async def _read(reader: asyncio.StreamReader, seen: list[float]) -> None:
    while await reader.readuntil(b"\n\n"):
        seen.append(time.perf_counter())
