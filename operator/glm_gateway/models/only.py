"""Where a request goes that only one place can answer."""

import asyncio
from dataclasses import dataclass

from glm_edge.errors.failure import Failure
from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.models.model import Model
from glm_gateway.proxy.client import Added
from glm_gateway.proxy.heads import MODEL_HEADER
from glm_gateway.proxy.outside import lost_outside
from glm_gateway.proxy.pool import Pool
from glm_gateway.routing.pick import Choice
from glm_gateway.upstreams.upstream import Upstream

TRIES_OUTSIDE = 2
"""The second one for a connection that was kept and had been closed."""


@dataclass
class ToGroup:
    """Places a request at the one group that can answer it, as it keeps what the request is about.

    writes: an answer is written.
    """

    model: Model
    group: str
    waited_s: float = 0.0
    writes: bool = False
    was_drained: bool = False  # the group failed it as it was leaving

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._eased: Easing | None = None

    @property
    def name(self) -> str:
        """What the request is counted under."""
        return self.model.name

    @property
    def easing(self) -> Easing:
        if self._eased is None:
            self._eased = self.model.overload.easing if self.writes else NO_EASING
        return self._eased

    async def place(self, avoid: frozenset[str]) -> Choice | Failure:  # noqa: ARG002 - there is no other one
        """Return the group, as long as it is there: a busy one has lost nothing, and no other one has what it keeps."""
        if not self.model.has(self.group):
            return Failure(
                404,
                f"the group {self.group[:100]} that kept it is no more, and what it kept is lost",
                "invalid_request_error",
                code="group_lost",
            )
        return self.model.charge(self.group)

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
        self.model.router.succeed(choice, self._loop.time(), prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.model.router.grow(choice, num_tokens, self._loop.time())

    def fail(self, choice: Choice, reason: str) -> None:  # noqa: ARG002 - for who logs
        """Blame nobody: one group's own responses say little of it."""
        self.was_drained = self.model.is_leaving(choice.group)

    def end(self, choice: Choice) -> None:
        self.model.end(choice)

    def may_retry(self) -> bool:
        return False

    def close(self) -> None:
        """The request has ended, however."""


@dataclass
class ToUpstream:
    """Places a request outside, as the arm of a name that its key is on."""

    upstream: Upstream
    waited_s: float = 0.0
    was_drained: bool = False  # nothing outside drains for us
    _num_tries: int = 0

    @property
    def name(self) -> str:
        """What the request is counted under."""
        return self.upstream.name

    @property
    def easing(self) -> Easing:
        return NO_EASING

    async def place(self, avoid: frozenset[str]) -> Upstream | Failure:  # noqa: ARG002 - there are no groups
        """Return the upstream, as often as a request is tried; again only within the budget of all its requests."""
        self._num_tries += 1
        now, retries = asyncio.get_running_loop().time(), self.upstream.retries
        if self._num_tries == 1:
            retries.note_request(now)
            return self.upstream
        may_try = self._num_tries <= TRIES_OUTSIDE and retries.take(now)
        return self.upstream if may_try else lost_outside(self.name)

    def pool(self, group: str) -> Pool:
        raise KeyError(group)

    def told(self, group: str) -> Added:  # noqa: ARG002 - there are no groups
        return ()

    def answers_late(self, group: str) -> bool:  # noqa: ARG002 - there are no groups
        return True

    def is_leaving(self, group: str) -> bool:  # noqa: ARG002 - there are no groups
        return False

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None: ...
    def grow(self, choice: Choice, num_tokens: int) -> None: ...
    def fail(self, choice: Choice, reason: str) -> None: ...
    def end(self, choice: Choice) -> None: ...

    def may_retry(self) -> bool:
        return False

    def close(self) -> None:
        """The request has ended, however."""
