"""Where one request goes: at once, or after it has waited for a group, told all the while for what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from glm_edge.errors.failure import Failure
from glm_gateway.hold.room import TurnedAway
from glm_gateway.hold.telling import comment
from glm_gateway.models.model import Model
from glm_gateway.proxy.pool import Pool
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import Choice, Request, Why

Picked = Callable[[str, Why], None]
Tell = Callable[[bytes], Awaitable[None]]

FIRST_TOLD_S = 1.0  # then a stream gets its head, and a comment that says what it waits for
TOLD_S = 10.0  # between two comments: proxies on the way close what is silent for longer


@dataclass
class ToGroup:
    """Places a request at the one group that can answer it, as it keeps what the request is about."""

    model: Model
    group: str
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def place(self, avoid: frozenset[str]) -> Choice | Failure:  # noqa: ARG002 - there is no other one
        """Return the group, as long as it is there: a busy one has lost nothing, and no other one has what it keeps."""
        if not self.model.has(self.group):
            return Failure(
                404,
                f"the group {self.group} that kept it is no more, and what it kept is lost",
                "invalid_request_error",
                code="group_lost",
            )
        return self.model.charge(self.group)

    def pool(self, group: str) -> Pool:
        return self.model.directory.pool(group)

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        self.model.router.succeed(choice, self._loop.time(), prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.model.router.book.grow(choice.charge, num_tokens)

    def fail(self, choice: Choice, reason: str) -> None:
        """Blame nobody: one group's own responses say little of it."""

    def end(self, choice: Choice) -> None:
        self.model.end(choice)

    def may_retry(self) -> bool:
        return False


@dataclass
class Placement:
    """Places one request, and each of its tries. tell: sends a comment to its client; None: it reads no stream.

    num_bytes: that are kept while it waits. picked: told of each choice. waited_s: how long it has, all in all.
    """

    model: Model
    request: Request
    place_in_line: Place
    num_bytes: int
    tell: Tell | None = None
    picked: Picked | None = None
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.model.retries.note_request(self._loop.time())
        self.model.arrive()

    async def place(self, avoid: frozenset[str]) -> Choice | Failure:
        """Return where the request goes now, if need be after a wait; or why it goes nowhere."""
        request = msgspec.structs.replace(self.request, avoid=avoid) if avoid else self.request
        choice = self.model.route(request) or await self._wait(request)
        if self.picked is not None and isinstance(choice, Choice):
            self.picked(self.model.name, choice.why)
        return choice

    def pool(self, group: str) -> Pool:
        return self.model.directory.pool(group)

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        self.model.router.succeed(choice, self._loop.time(), prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.model.router.book.grow(choice.charge, num_tokens)

    def fail(self, choice: Choice, reason: str) -> None:  # noqa: ARG002 - for who logs
        self.model.router.fail(choice, self._loop.time())

    def end(self, choice: Choice) -> None:
        self.model.end(choice)

    def may_retry(self) -> bool:
        return self.model.retries.take(self._loop.time())

    async def _wait(self, request: Request) -> Choice | Failure:
        model, began = self.model, self._loop.time()
        ticket = model.room.enter(self.num_bytes, self.place_in_line, began)
        if isinstance(ticket, TurnedAway):
            return self._turned_away(ticket.reason)
        call = model.wait(ticket, request)
        is_taken = False
        try:
            async with asyncio.timeout(model.bounds.timeout_s):
                choice = await self._told(call, began)
            is_taken = True
            return choice
        except TimeoutError:
            return self._turned_away(f"no group took the request within {model.bounds.timeout_s:g} s")
        finally:
            model.leave(ticket)
            self.waited_s += self._loop.time() - began
            if not is_taken and call.done() and not call.cancelled():  # placed at the moment of its end
                model.end(call.result())

    async def _told(self, call: asyncio.Future[Choice], began: float) -> Choice:
        """Wait until the request is placed. Its client is told for what it waits, again and again."""
        while not call.done():
            pause = FIRST_TOLD_S if self._loop.time() - began < FIRST_TOLD_S else TOLD_S
            await asyncio.wait([call], timeout=None if self.tell is None else pause)
            if not call.done() and self.tell is not None:
                now = self._loop.time()
                await self.tell(comment(self.model.name, self.model.start, now - began, now))
        return call.result()

    def _turned_away(self, reason: str) -> Failure:
        return Failure(
            503,
            reason,
            "service_unavailable",
            code="no_group_ready",
            retry_after_s=max(1, self.model.start.retry_after_s(self._loop.time())),
        )
