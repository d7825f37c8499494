"""How one request stands, or ended, for those who count it; and who is told while it runs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from glm_edge.errors.failure import Failure
from glm_gateway.continuation.progress import Progress
from glm_gateway.proxy.relay.outcome import Outcome, outcome_of
from glm_gateway.proxy.watching import Unwatched, Watching
from glm_gateway.surfaces.usage import Told


@dataclass
class Result:
    """outcome: CANCELLED until it is known. group: that was asked last; empty: none has taken the request.
    is_asked: a server has the request, and has not said, nor shown by its end, that it will not answer.

    first_token_at: on the loop's clock. is_plain: what the client has begun to read is no frames. told: what such a
    reply says that it used. plain_status: of such a reply; 0: there is none.
    """

    progress: Progress
    outcome: Outcome = Outcome.CANCELLED
    group: str = ""
    is_asked: bool = False
    failure: Failure | None = None
    first_token_at: float | None = None
    is_plain: bool = False
    plain_status: int = 0
    told: Told | None = None

    def note_first(self, now_s: float) -> None:
        """Note that a part of an answer came, if it is the first one."""
        self.first_token_at = self.first_token_at or now_s

    def fail(self, failure: Failure) -> None:
        """Note that there is no more, and why."""
        self.failure = failure
        self.outcome = outcome_of(failure.status)


async def _nothing() -> None: ...


async def _let_in(num_prompt_tokens: int) -> Failure | None:  # noqa: ARG001 - of `opening`
    return None


@dataclass
class Hooks:
    """watching: told of each frame.

    opening: asked once, by the prompt's tokens, when the first group opens the reply and before its client hears of
    that; what it returns is told in place of the reply, and the group's work ends.

    ended: called when it is known how the reply ends, before its client knows: what the request held is free by the
    time that the client asks for more. Once or more.
    """

    watching: Watching = field(default_factory=Unwatched)
    opening: Callable[[int], Awaitable[Failure | None]] = _let_in
    ended: Callable[[], Awaitable[None]] = _nothing

    def forget(self) -> None:
        """Tell nobody any more. Who is told knows the request: each would keep the other until garbage is collected."""
        self.watching, self.opening, self.ended = Unwatched(), _let_in, _nothing
