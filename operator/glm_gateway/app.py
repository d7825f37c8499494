"""The gateway as a pure ASGI application."""

from collections.abc import Awaitable, Callable
from typing import Any

from glm_gateway.exchange.bodies import Bodies
from glm_gateway.exchange.exchange import Exchange
from glm_gateway.exchange.state import State

Message = dict[str, Any]


class Gateway(State):
    """Takes requests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bodies = Bodies()

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        self.num_running += 1
        body = self.bodies.of_one(receive)
        try:
            await Exchange(self, scope, body, send).run()
        finally:
            body.end()
            self.num_running -= 1
