"""Where one request goes: at once, or after it has waited for a group, told all the while for what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

import msgspec

from glm_edge.errors.failure import Failure
from glm_gateway.hold.room import Ticket, TurnedAway
from glm_gateway.hold.telling import comment, turn_comment
from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.models.model import Model
from glm_gateway.proxy.client import Added
from glm_gateway.proxy.heads import MODEL_HEADER
from glm_gateway.proxy.pool import Pool
from glm_gateway.routing.classes import DEFAULT_CLASS, Place
from glm_gateway.routing.pick import Choice, Request, Why
from glm_gateway.upstreams.upstream import Upstream

Picked = Callable[[str, Why], None]
Tell = Callable[[bytes], Awaitable[None]]

FIRST_TOLD_S = 1.0  # then a stream gets its head, and a comment that says what it waits for
TOLD_S = 10.0  # between two comments: proxies on the way close what is silent for longer


@dataclass
class Placement:
    """Places one request, and each of its tries; then `close` it.

    tell: sends a comment to its client; None: it reads no stream. num_bytes: that are kept while it waits. picked: told
    of each choice. waited_s: how long it has, all in all. promise_s: within which its first token is promised, from its
    arrival; None: it is not. deadline_s: from its arrival, as it said itself. may_go_outside: an upstream can take it.
    writes: an answer is written; nothing else is eased or refused for its load. class_name: of the caller, by priority.
    """

    model: Model
    request: Request
    place_in_line: Place
    num_bytes: int
    tell: Tell | None = None
    picked: Picked | None = None
    waited_s: float = 0.0
    promise_s: float | None = None
    deadline_s: float | None = None
    may_go_outside: bool = False
    writes: bool = True
    class_name: str = DEFAULT_CLASS
    was_drained: bool = False  # the last group that failed it was leaving

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.model.retries.note_request(self._loop.time())
        self.model.arrive()
        self._pending = self.model.overload.enter(self.place_in_line.arrived_s, self.promise_s) if self.writes else None
        self._eased: Easing | None = None  # of all of its tries, from the first on
        self._gives_up_s: float | None = None

    @property
    def name(self) -> str:
        """What the request is counted under."""
        return self.model.name

    @property
    def easing(self) -> Easing:
        """What overload does to this request: as it is now, until it is sent for the first time."""
        if not self.writes:
            return NO_EASING
        return self.model.overload.easing if self._eased is None else self._eased

    async def place(self, avoid: frozenset[str]) -> Choice | Upstream | Failure:
        """Return where the request goes now, if need be after a wait; or why it goes nowhere."""
        request = msgspec.structs.replace(self.request, avoid=avoid) if avoid else self.request
        self.model.look()
        choice = self.model.route(request) or await self._wait(request)
        if isinstance(choice, Choice):
            self._eased = self.easing
            if self._pending is not None:
                self._pending.group, self._pending.sent_s = choice.group, self._loop.time()
            if self.picked is not None:
                self.picked(self.model.name, choice.why)
        return choice

    def pool(self, group: str) -> Pool:
        return self.model.directory.pool(group)

    def told(self, group: str) -> Added:
        """Return what a group is told of where it is asked: the model that is meant, as it calls it."""
        return [(MODEL_HEADER, self.model.served_as(group).encode())]

    def answers_late(self, group: str) -> bool:
        return self.model.answers_late(group)

    def is_leaving(self, group: str) -> bool:
        return self.model.is_leaving(group)

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        """Note that a reply has begun. From now on only a group can go on with it, and a wait for one begins anew."""
        now = self._loop.time()
        self.may_go_outside, self._gives_up_s = False, None
        self.model.router.succeed(choice, now, prompt_tokens)
        if prompt_tokens is None:  # a plain reply does not say when its first token comes
            self.model.overload.leave(self._pending)
        else:
            self.model.overload.throughput.note(prompt_tokens, now)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.model.overload.leave(self._pending)
        now = self._loop.time()
        self.model.overload.throughput.note(num_tokens, now)
        self.model.router.grow(choice, num_tokens, now)

    def fail(self, choice: Choice, reason: str) -> None:  # noqa: ARG002 - for who logs
        self.was_drained = self.model.is_leaving(choice.group)
        self.model.router.fail(choice, self._loop.time())

    def end(self, choice: Choice) -> None:
        self.model.end(choice)
        if self._pending is not None:
            self._pending.group = None

    def may_retry(self) -> bool:
        return self.model.retries.take(self._loop.time())

    def close(self) -> None:
        """The request has ended, however."""
        self.tell = None
        self.model.overload.leave(self._pending)

    async def _wait(self, request: Request) -> Choice | Upstream | Failure:
        model, began = self.model, self._loop.time()
        if model.is_off:
            return self._refused(model.switched_off())
        may_be_shed = self.writes and self._eased is None
        if may_be_shed and (refusal := model.shed(self.place_in_line)) is not None:
            return self._refused(refusal)
        owed = model.owed_tokens(request)
        ticket = model.room.enter(self.num_bytes, self.place_in_line, began, owed, may_be_shed=may_be_shed)
        if isinstance(ticket, TurnedAway):
            return self._refused(self._no_group(ticket.reason))
        if self._gives_up_s is None:
            self._gives_up_s = began + model.bounds.timeout_s
        call = model.wait(ticket, request)
        is_taken = False
        try:
            found = await self._called(ticket, call, began)
            is_taken = True
            return self._refused(found) if isinstance(found, Failure) and call.done() else found
        finally:
            model.leave(ticket)
            self.waited_s += self._loop.time() - began
            placed = call.result() if not is_taken and call.done() and not call.cancelled() else None
            if isinstance(placed, Choice):  # at the moment of its end
                model.end(placed)

    async def _called(
        self, ticket: Ticket, call: asyncio.Future[Choice | Failure], began: float
    ) -> Choice | Upstream | Failure:
        """Wait until the request is placed, refused for another one, over, or goes outside."""
        assert self._gives_up_s is not None
        due_s = inf if self.deadline_s is None else self.place_in_line.arrived_s + self.deadline_s
        overflow_s = self._overflow_s
        while True:
            try:
                async with asyncio.timeout_at(min(self._gives_up_s, due_s, overflow_s)):
                    return await self._told(ticket, call, began)
            except TimeoutError:
                if call.done():
                    return call.result()
                now = self._loop.time()
                if now >= due_s:
                    return Failure(
                        504,
                        f"the deadline of {self.deadline_s:g} s has passed while the request waited for a group",
                        "deadline_passed",
                        code="deadline_passed",
                    )
                if now >= overflow_s and (upstream := self._outside()) is not None:
                    return upstream
                if now >= self._gives_up_s:
                    return self._no_group(f"no group took the request within {self.model.bounds.timeout_s:g} s")
                overflow_s = inf

    async def _told(self, ticket: Ticket, call: asyncio.Future[Choice | Failure], began: float) -> Choice | Failure:
        """Wait until the request is placed. Its client is told for what it waits, again and again."""
        model = self.model
        while not call.done():
            pause = FIRST_TOLD_S if self._loop.time() - began < FIRST_TOLD_S else TOLD_S
            await asyncio.wait([call], timeout=None if self.tell is None else pause)
            if not call.done() and self.tell is not None:
                now = self._loop.time()
                if model.is_ready:
                    await self.tell(turn_comment(model.name, now - began, model.room.num_before(ticket)))
                else:
                    await self.tell(comment(model.name, model.start, now - began, now))
        return call.result()

    @property
    def _overflow_s(self) -> float:
        """When the request goes outside, if it waits as long; inf: never."""
        overflow = self.model.overflow
        if overflow is None or not self.may_go_outside:
            return inf
        return self.place_in_line.arrived_s + overflow.after_s

    def _outside(self) -> Upstream | None:
        """Return the upstream where the request goes now, once; None: it cannot go there."""
        overflow = self.model.overflow
        if overflow is None or not self.may_go_outside or not overflow.upstream.is_ready:
            return None
        self.may_go_outside = False
        self.model.overload.leave(self._pending)
        return overflow.upstream

    def _refused(self, failure: Failure) -> Upstream | Failure:
        """Return the upstream in place of a refusal for load, where there is one."""
        upstream = self._outside()
        if upstream is not None:
            return upstream
        if self.model.is_ready:
            self.model.overload.num_shed[self.class_name] += 1
        return failure

    def _no_group(self, reason: str) -> Failure:
        return Failure(
            503,
            reason,
            "service_unavailable",
            code="overloaded" if self.model.is_ready else "no_group_ready",
            retry_after_s=self.model.retry_after_s,
        )
