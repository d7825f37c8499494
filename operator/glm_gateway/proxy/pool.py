"""Connections to one group that are kept open between requests."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from glm_gateway.proxy.connection import Connection, NoConnection
from glm_gateway.proxy.opened import Opened

MAX_IDLE = 512
"""As many streams as a group had at once go on without connecting anew; a worker has room for 2,048 connections, and
closes those that ask for nothing where it has not."""


OPENED = Opened()
"""Files are the process's, so are the connections that have them."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a group may take, in seconds."""

    connect_s: float = 2.0  # within a cluster this takes a millisecond; a node that is gone never answers
    write_s: float = 30.0  # for the whole request
    idle_s: float = 60.0  # a connection that was idle for longer is not used again: groups close theirs after 75 s


@dataclass
class Pool:
    """host: an address, never a name: groups are found elsewhere. Use it from one event loop.

    server_name: that the certificate of a server with TLS must say; None: its host; empty: tls asks for no name.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    patience: Patience = Patience()
    max_idle: int = MAX_IDLE
    server_name: str | None = None
    opened: Opened = OPENED
    _is_closed: bool = False
    _idle: list[Connection] = field(default_factory=list)  # the one used last is the last

    async def ask(self, head: bytes, body: Sequence[bytes]) -> Connection:
        """Send a request, and return the connection that its reply comes by. Give it back with `done`.

        Raises UpstreamLost; NoConnection where none can be had in time.
        """
        connection = self._kept() or await self._connected()
        try:
            await connection.ask(head, body, self.patience.write_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def done(self, connection: Connection) -> None:
        """Keep a connection for later, or close it where its reply was not read to the end."""
        if connection.is_reusable and not self._is_closed and len(self._idle) < self.max_idle:
            connection.is_kept = True
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on: the group is no more."""
        self._is_closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            connection.is_kept = False
            if connection.is_reusable and now - connection.idle_since < self.patience.idle_s:
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        name = self.server_name if self.tls is not None else None
        try:
            async with asyncio.timeout(self.patience.connect_s), self.opened.another():
                _, connection = await loop.create_connection(
                    Connection, self.host, self.port, ssl=self.tls, server_hostname=name
                )
        except TimeoutError:
            raise NoConnection(f"no connection within {self.patience.connect_s} s") from None
        except OSError as error:
            raise NoConnection(f"no connection: {error.strerror or error}") from error
        self.opened.note(connection)
        return connection
