"""What a relay must know of a server that is no group of ours: how it is asked, and how its reply is read."""

from collections.abc import Sequence
from typing import Protocol

from glm_edge.errors.failure import Failure
from glm_gateway.proxy.connection import Connection, Head
from glm_gateway.proxy.heads import RawHeaders
from glm_gateway.surfaces.usage import Told


class Reading(Protocol):
    """One reply from outside. told: what it says that it used; None: nothing yet."""

    def headers(self, head: Head) -> list[tuple[bytes, bytes]]:
        """Return those of the head that the client gets."""

    def feed(self, data: bytes) -> bytes:
        """Return what of these bytes the client gets now. Raises UpstreamLost."""

    def end(self) -> bytes:
        """Return what is left for the client at the end."""

    def idle(self) -> bytes:
        """Return a comment that may be written between what was fed; empty: none may."""

    @property
    def told(self) -> Told | None: ...


class Outside(Protocol):
    """A server outside."""

    @property
    def name(self) -> str: ...

    async def ask(self, path: str, headers: RawHeaders, body: bytes, *, streams: bool) -> tuple[Connection, Reading]:
        """Send a request; the connection goes back by `done`. Raises UpstreamLost."""

    def done(self, connection: Connection) -> None: ...
    def succeed(self) -> None: ...
    def fail(self, reason: str) -> None: ...


TO_THE_CLIENT: Sequence[int] = (400, 413, 415, 422, 508)
"""Statuses from outside that clients get; what else is no success is between the gateway and the server."""


def lost_outside(name: str) -> Failure:
    """Return what a client is told whose request nobody outside answers. Why is in the log."""
    return Failure(
        502,
        f"the upstream {name} did not answer; try again",
        "upstream_error",
        code="upstream_failed",
        retry_after_s=5,
    )
