"""Compiled grammars by recipe: each compiled once, kept within bounds, refused ones remembered for a moment."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from glm_worker.errors import RequestRefused
from glm_worker.request import AnswerGrammar
from glm_worker.server.structured.recipe import Recipe


@dataclass(frozen=True)
class CacheLimits:
    """How much is kept. bytes: of compiled grammars, as they are sent to the engine."""

    num_grammars: int = 256
    num_bytes: int = 64 * 2**20
    num_refusals: int = 256
    refusal_s: float = 30.0  # a client that repeats a bad schema costs nothing meanwhile


class Compiles(Protocol):
    """What turns a recipe into bytes: compiler.py, or a test's own."""

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object]) -> bytes:
        """Return the packed grammar. on_begin: its turn has come. Raises RequestRefused and Overloaded."""


@dataclass(eq=False)
class _Compilation:
    """One that waits for its turn or runs, and how many requests wait for it."""

    task: "asyncio.Future[bytes]" = field(init=False)
    num_waiting: int = 0
    has_begun: bool = False

    def begin(self) -> None:
        self.has_begun = True


class Grammars:
    """The grammars of one checkpoint, for the path of requests. Use it in one event loop."""

    def __init__(
        self, compiler: Compiles, limits: CacheLimits | None = None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._compiler = compiler
        self._limits = limits or CacheLimits()
        self._clock = clock
        self._compiled: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._refused: OrderedDict[str, tuple[float, RequestRefused]] = OrderedDict()
        self._running: dict[str, _Compilation] = {}

    async def compiled(self, recipe: Recipe, *, close_id: int | None = None) -> AnswerGrammar:
        """Return the recipe's grammar for a request. close_id: the token that ends its thought, if it begins in one.

        Raises RequestRefused when it cannot be compiled within the limits, and Overloaded when too many others wait.
        """
        key = recipe.key
        found = self._compiled.get(key)
        if found is not None:
            self._compiled.move_to_end(key)
        else:
            self._raise_refused(recipe)
            found = await self._compile(recipe)
        return AnswerGrammar(key=key, compiled=found, close_id=close_id)

    async def _compile(self, recipe: Recipe) -> bytes:
        """Wait for the one compilation of this key.

        One that has begun goes on when its requests are cancelled, and is kept; one that nobody waits for never begins.
        """
        running = self._running.get(recipe.key)
        if running is None:
            running = self._running[recipe.key] = self._started(recipe)
        running.num_waiting += 1
        try:
            return await asyncio.shield(running.task)
        except RequestRefused as error:
            raise _refusal(error, recipe) from error
        finally:
            running.num_waiting -= 1
            if not (running.num_waiting or running.has_begun or running.task.done()):
                del self._running[recipe.key]  # who comes now begins a new one
                running.task.cancel()

    def _started(self, recipe: Recipe) -> _Compilation:
        running = _Compilation()
        running.task = asyncio.create_task(self._compiler.compile(recipe, on_begin=running.begin))
        running.task.add_done_callback(lambda done: self._keep(recipe.key, running, done))
        return running

    def _keep(self, key: str, running: _Compilation, task: "asyncio.Future[bytes]") -> None:
        if self._running.get(key) is running:
            del self._running[key]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, RequestRefused):
            self._refused[key] = (self._clock() + self._limits.refusal_s, error)
            while len(self._refused) > self._limits.num_refusals:
                self._refused.popitem(last=False)
        if error is None:
            self._compiled[key] = task.result()
            self._num_bytes += len(task.result())
            while len(self._compiled) > self._limits.num_grammars or self._num_bytes > self._limits.num_bytes:
                self._num_bytes -= len(self._compiled.popitem(last=False)[1])

    def _raise_refused(self, recipe: Recipe) -> None:
        until, error = self._refused.get(recipe.key, (0.0, None))
        if error is None:
            return
        if self._clock() < until:
            raise _refusal(error, recipe)
        del self._refused[recipe.key]


def _refusal(error: RequestRefused, recipe: Recipe) -> RequestRefused:
    """Return the refusal of a key, naming the field that this recipe came from."""
    return RequestRefused(error.message, param=recipe.param or None, code=error.code, status=error.status)
