"""A Placing that writes into a trace where a request goes, how long it waited for that, and who was lost."""

import asyncio
from dataclasses import dataclass

from glm_edge.errors.failure import Failure
from glm_gateway.ladder.easing import Easing
from glm_gateway.proxy.client import Added
from glm_gateway.proxy.outside import Outside
from glm_gateway.proxy.pool import Pool
from glm_gateway.proxy.relay.placing import Placing
from glm_gateway.proxy.relay.result import Result
from glm_gateway.routing.pick import Choice
from glm_gateway.traces.trace import Trace


@dataclass
class TracedPlacing:
    """inner: does the work. result: how the request stands; None until it is sent."""

    inner: Placing
    trace: Trace
    result: Result | None = None

    def __post_init__(self) -> None:
        self._now_s = asyncio.get_running_loop().time

    @property
    def easing(self) -> Easing:
        return self.inner.easing

    async def place(self, avoid: frozenset[str]) -> Choice | Outside | Failure:
        began_s = self._now_s()
        found = await self.inner.place(avoid)
        now_s = self._now_s()
        waited_s = round(now_s - began_s, 6)
        goes_on = self.result is not None and self.result.progress.opened is not None
        if isinstance(found, Choice):
            self.trace.note(
                "continued" if goes_on else "chosen",
                now_s,
                group=found.group,
                why=found.why,
                waited_s=waited_s,
                expected_s=round(found.wait_s, 6),
                known_tokens=found.known_tokens,
            )
        elif isinstance(found, Failure):
            self.trace.note("not_placed", now_s, waited_s=waited_s, status=found.status, code=found.code)
        else:
            self.trace.note("chosen", now_s, upstream=found.name, why="outside", waited_s=waited_s)
        return found

    def pool(self, group: str) -> Pool:
        return self.inner.pool(group)

    def told(self, group: str) -> Added:
        return self.inner.told(group)

    def answers_late(self, group: str) -> bool:
        return self.inner.answers_late(group)

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        self.trace.note("taken", self._now_s(), group=choice.group, prompt_tokens=prompt_tokens)
        self.inner.succeed(choice, prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.inner.grow(choice, num_tokens)

    def fail(self, choice: Choice, reason: str) -> None:
        # What stands behind a colon is for operators: addresses of groups are not for clients.
        self.trace.note("lost", self._now_s(), group=choice.group, reason=reason.partition(":")[0][:80])
        self.inner.fail(choice, reason)

    def end(self, choice: Choice) -> None:
        self.inner.end(choice)

    def may_retry(self) -> bool:
        may = self.inner.may_retry()
        self.trace.note("tried_again" if may else "not_tried_again", self._now_s())
        return may
