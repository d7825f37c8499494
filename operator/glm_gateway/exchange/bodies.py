"""How much memory the bodies of all requests under way may take: a body is kept until its reply is over, for another
group may have to be asked with it. Past the bound a request is told to come again, before more of it is read."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from glm_edge.errors.failure import Failure
from glm_gateway.exchange.refused import Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

MAX_BYTES = 512 * 2**20
"""2,400 prompts of 220 KB, or 32 of the largest bodies."""

AGAIN_S = 1


@dataclass
class Bodies:
    """Use it from one event loop. num_bytes: that are kept now."""

    max_bytes: int = MAX_BYTES
    num_bytes: int = 0

    def of_one(self, receive: Receive) -> "Body":
        """Return what counts the body of one request. Call its `end` when the request is over."""
        return Body(self, receive)


@dataclass
class Body:
    """The messages of one request, counted as they come."""

    bodies: Bodies
    receive: Receive
    num_bytes: int = 0

    async def __call__(self) -> dict[str, Any]:
        """Return the next message. Raises Refused when there is no room for it."""
        message = await self.receive()
        num_bytes = len(message.get("body", b""))
        if self.bodies.num_bytes + num_bytes > self.bodies.max_bytes:
            raise Refused(
                Failure(
                    503,
                    f"the bodies of the requests under way have {self.bodies.num_bytes} bytes, of which"
                    f" {self.bodies.max_bytes} are kept at once; try again",
                    "service_unavailable",
                    code="overloaded",
                    retry_after_s=AGAIN_S,
                )
            )
        self.num_bytes += num_bytes
        self.bodies.num_bytes += num_bytes
        return message

    def end(self) -> None:
        """Give the room back."""
        self.bodies.num_bytes -= self.num_bytes
        self.num_bytes = 0
