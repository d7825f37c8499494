"""The generation that serves, or is about to: its link to the engine, and the task that reads from it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import zmq.asyncio

from glm_worker.messages import (
    EngineReady,
    EngineServing,
    FirstAnswer,
    FromEngine,
    GenerationEnded,
    GenerationStarting,
    StepBegins,
    StepDone,
)
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.link import EngineLink

log = logging.getLogger(__name__)

READ_S = 1.0  # for what a dead engine has said and nobody has read; more than that is computed again


class Generations:
    """Follows what the supervisor says about generations. There is at most one at a time."""

    def __init__(self, flights: Flights, announce: Callable[[EngineServing | FirstAnswer], None]) -> None:
        self._flights = flights
        self._announce = announce
        self._context = zmq.asyncio.Context()
        self._link: EngineLink | None = None
        self._reader: asyncio.Task[None] | None = None
        self._has_answered = False  # the current one, as announced

    async def start(self, starting: GenerationStarting) -> None:
        """Listen for the engine of a new generation."""
        if self._link is not None:
            await self.end(GenerationEnded(self._link.generation, "another generation took its place"))
        log.info("generation=%s waiting for its engine at %s", starting.generation, starting.endpoint)
        self._flights.resume()
        self._has_answered = False
        self._link = EngineLink(self._context, starting.generation, starting.endpoint)
        self._reader = asyncio.create_task(self._read(self._link))

    async def end(self, ended: GenerationEnded) -> None:
        """A generation is dead. Word of one that is not the current one changes nothing.

        What its engine has said is read first: it comes another way than the word of its end, and tells of tokens that
        are computed, and of who was computed last.
        """
        if self._link is None or self._link.generation != ended.generation:
            log.warning("generation=%s has ended, but it is not the current one", ended.generation)
            return
        log.info("generation=%s ended: %s", ended.generation, ended.cause)
        if self._flights.is_served:
            await self._read_rest(self._link)
        self._drop(ended.cause)

    def close(self) -> None:
        if self._link is not None:
            self._drop("the server stops")
        self._context.destroy(linger=0)

    async def _read_rest(self, link: EngineLink) -> None:
        """Let the reader take all that has arrived of an engine that is dead."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                await link.left()
                while link.has_unread:  # noqa: ASYNC110  the reader has its turns meanwhile
                    await asyncio.sleep(0)
                return
        log.warning("generation=%s did not leave within %s s, or said too much to be read", link.generation, READ_S)

    def _drop(self, cause: str) -> None:
        assert self._link is not None
        assert self._reader is not None
        generation = self._link.generation
        self._reader.cancel()
        self._link.close()
        self._link = self._reader = None
        self._flights.lose(generation, cause)

    async def _read(self, link: EngineLink) -> None:
        while True:
            message = await link.receive()
            try:
                self._take(link, message)
            except Exception:
                log.exception("generation=%s message of the engine failed", link.generation)

    def _take(self, link: EngineLink, message: FromEngine) -> None:
        match message:
            case EngineReady(limits=limits, load_seconds=seconds, deterministic=deterministic, kernels=kernels):
                log.info("generation=%s serves after %.1f s of loading: %s", link.generation, seconds, limits)
                self._flights.deterministic = deterministic
                self._flights.kernels = kernels
                self._flights.serve(link, limits)
                self._announce(EngineServing(link.generation))
            case StepBegins():
                self._flights.begin_step(message)
            case StepDone():
                self._flights.step(message)
                if self._flights.num_finished and not self._has_answered:
                    self._has_answered = True
                    self._announce(FirstAnswer(link.generation))
