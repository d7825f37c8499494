"""An engine that answers by itself: what each request gets is a function of the request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import ScriptedEngine, token_ids

END = "<|user|>"
FILLER = token_ids("a")[0]


@dataclass
class Writer:
    """text: of every answer, ended by the model; None: as many tokens as a request may have, cut by its length.

    is_open: while it is not set, what is asked waits. asked: all requests, in order.
    """

    engine: ScriptedEngine
    text: Callable[[EngineRequest], str | None] = lambda _: None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[EngineRequest] = field(default_factory=list)

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            request = await self.engine.submitted.get()
            self.asked.append(request)
            await self.is_open.wait()
            await self.answer(request)

    async def answer(self, request: EngineRequest) -> None:
        text = self.text(request)
        if text is None:
            whole = RequestOutput(request.request_id, [FILLER] * request.max_tokens, "length")
        else:
            whole = RequestOutput(request.request_id, token_ids(text + END), "stop")
        await self.engine.step(whole)


@contextlib.asynccontextmanager
async def writing(engine: ScriptedEngine) -> AsyncIterator[Writer]:
    """Let an engine answer while this is entered."""
    writer = Writer(engine)
    writer.is_open.set()
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
