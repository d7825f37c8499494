"""How much memory the bodies of all requests under way may take: a body is kept until its reply is over, for another
group may have to be asked with it. Past the bound a request is told to come again, before more of it is read.

Where half of the room is taken, a caller has no more than a share of it: bodies are read before limits are looked at,
and nobody may fill the room for all others.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from glm_edge.errors.failure import Failure
from glm_edge.http.heads import MAX_BODY_BYTES
from glm_gateway.exchange.refused import Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

MAX_BYTES = 512 * 2**20
"""2,400 prompts of 220 KB, or 32 of the largest bodies."""

SHARES = 8
"""One of them is a caller's, while half of the room is taken."""

AGAIN_S = 1


@dataclass
class Bodies:
    """Use it from one event loop. num_bytes: that are kept now. of_callers: of each that is known."""

    max_bytes: int = MAX_BYTES
    num_bytes: int = 0
    of_callers: Counter[str] = field(default_factory=Counter)

    def of_one(self, receive: Receive) -> "Body":
        """Return what counts the body of one request. Call its `end` when the request is over."""
        return Body(self, receive)


@dataclass
class Body:
    """The messages of one request, counted as they come. caller: whose they are, said before the first one is read.

    Empty: nobody knows, and then all have the room together.
    """

    bodies: Bodies
    receive: Receive
    num_bytes: int = 0
    caller: str = ""

    async def __call__(self) -> dict[str, Any]:
        """Return the next message. Raises Refused when there is no room for it."""
        message = await self.receive()
        # What is beyond the largest body is read and not kept, so that its client can be told.
        bodies, num_bytes = self.bodies, min(len(message.get("body", b"")), MAX_BODY_BYTES - self.num_bytes)
        if not num_bytes:
            return message
        if bodies.num_bytes + num_bytes > bodies.max_bytes:
            raise _no_room(f"have {bodies.num_bytes} bytes, of which {bodies.max_bytes} are kept at once")
        own, share = bodies.of_callers[self.caller] + num_bytes, bodies.max_bytes // SHARES
        if self.caller and own > share and bodies.num_bytes + num_bytes > bodies.max_bytes // 2:
            raise _no_room(f"of this key have {own} bytes; while many requests are under way {share} are allowed")
        self.num_bytes += num_bytes
        bodies.num_bytes += num_bytes
        if self.caller:
            bodies.of_callers[self.caller] = own
        return message

    def end(self) -> None:
        """Give the room back."""
        self.bodies.num_bytes -= self.num_bytes
        if self.caller:
            self.bodies.of_callers[self.caller] -= self.num_bytes
            if not self.bodies.of_callers[self.caller]:
                del self.bodies.of_callers[self.caller]
        self.num_bytes = 0


def _no_room(how_much: str) -> Refused:
    return Refused(
        Failure(
            503,
            f"the bodies of the requests under way {how_much}; try again",
            "service_unavailable",
            code="overloaded",
            retry_after_s=AGAIN_S,
        )
    )
