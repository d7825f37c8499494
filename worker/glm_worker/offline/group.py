"""A whole group in this process: the server's rooms in the event loop of one thread, rank 0 in another.

What HTTP requests meet is met here as well, from the bounds of a body to the words of an error: it is the same
application. There is no port, no supervisor and no second start: a rank that fails ends the group.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from starlette.types import ASGIApp

from glm_worker.errors import EngineFailed, GlmWorkerError
from glm_worker.messages import GenerationEnded, GenerationStarting
from glm_worker.models import resolve
from glm_worker.offline.engine_dir import EngineDir
from glm_worker.offline.grammars import LocalCompiler
from glm_worker.offline.rank_thread import GENERATION, RankThread
from glm_worker.server.app import make_app
from glm_worker.server.backend import Backend
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.generations import Generations
from glm_worker.server.flights.journal import Journal, QueueLimits
from glm_worker.server.jobs.context import Rules
from glm_worker.server.jobs.job import Room
from glm_worker.server.metrics.telemetry import Telemetry
from glm_worker.server.policy import policy_of
from glm_worker.server.structured.grammars import Grammars
from glm_worker.settings import WorkerSettings

Result = TypeVar("Result")
CLOSED = "the engine is closed; make another one"


class LocalGroup:
    """Starts when it is made, and serves until it is closed."""

    def __init__(self, make_settings: Callable[[Path], WorkerSettings]) -> None:
        """make_settings: of the folder for sockets. Returns when the rank serves. Raises what it failed of."""
        self.failure: BaseException | None = None
        self._serves = threading.Event()
        self._is_closed = False
        self._is_ending = False  # the loop has begun to end what it does
        self._closing = threading.Lock()  # what the loop is given to do comes before its end, or is refused
        self._dir = EngineDir()
        try:
            self.settings = make_settings(self._dir.path)
            folder = resolve(self.settings.model)
            self.checkpoint = Checkpoint.read(
                folder, name=self.settings.served_model_name, max_model_len=self.settings.max_model_len
            )
            self._loop = uvloop.new_event_loop()
            self._thread = threading.Thread(target=self._run_loop, name="glm-server", daemon=True)
            self._thread.start()
            self._compiler = LocalCompiler(folder)
            endpoint = f"ipc://{self._dir.path}/engine"
            self.app, self._flights, self._generations = self.run(self._make(endpoint)).result()
            self._rank = RankThread(self.settings, self._dir.path, endpoint, self._on_end)
            self._rank.start()
        except BaseException:
            self._dir.close()
            raise
        try:
            self._serves.wait()
            self.check()
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Have the loop do some work, and return its future; to cancel that is to cancel the work.

        Raises EngineFailed if it is closed, and so does the future if it is closed meanwhile.
        """
        with self._closing:
            if not self._is_closed:
                return asyncio.run_coroutine_threadsafe(self._until_closed(work), self._loop)
        work.close()
        raise EngineFailed(CLOSED)

    def check(self) -> None:
        """Raise what the rank failed of: an error of ours as it is, another one, and being closed, as EngineFailed."""
        if isinstance(self.failure, GlmWorkerError):
            raise self.failure
        if self.failure is not None:
            raise EngineFailed(f"the engine failed: {type(self.failure).__name__}: {self.failure}") from self.failure
        if self._is_closed:
            raise EngineFailed(CLOSED)

    def close(self) -> None:
        """End what is in flight, and both threads. Again, it does nothing."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._rank.stop()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._dir.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _until_closed(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await work
        except asyncio.CancelledError:
            if self._is_ending:  # then it is not its caller who does not want it any more
                self.check()
            raise

    async def _make(self, endpoint: str) -> tuple[ASGIApp, Flights, Generations]:
        settings, checkpoint = self.settings, self.checkpoint
        telemetry = Telemetry(checkpoint.name, settings.identity)
        limits = QueueLimits(settings.max_waiting_requests, settings.max_waiting_tokens, settings.max_num_seqs)
        flights = Flights(Journal(limits), telemetry, Room(checkpoint.max_model_len))
        policy = policy_of(settings)
        backend = Backend(
            checkpoint=checkpoint,
            flights=flights,
            telemetry=telemetry,
            rules=Rules(
                control_tokens_are_text=settings.control_tokens == "text",
                any_tool_name=settings.undeclared_tools == "call",
                prefix_block_size=settings.block_size if settings.prefix_cache else 0,
            ),
            policy=lambda: policy,
            grammars=Grammars(self._compiler),
            started=int(time.time()),
        )
        generations = Generations(flights, lambda _: self._serves.set())
        await generations.start(GenerationStarting(GENERATION, endpoint))
        return make_app(backend), flights, generations

    def _on_end(self, failure: BaseException | None) -> None:
        """Note why the rank has ended, and end what waits for it. Runs in its thread."""
        if failure is not None:
            self.failure = failure
            asyncio.run_coroutine_threadsafe(self._lose(), self._loop)  # closed or not
        self._serves.set()

    async def _lose(self) -> None:
        self._flights.fail_all(EngineFailed("the engine failed"))
        self._flights.close(retry_after_s=0)
        await self._generations.end(GenerationEnded(GENERATION, f"{type(self.failure).__name__}"))

    async def _end(self) -> None:
        self._is_ending = True
        self._flights.fail_all(EngineFailed(CLOSED))
        self._generations.close()
        self._compiler.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()
