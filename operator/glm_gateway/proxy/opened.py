"""All connections of this process to groups: where files become few, those that are idle make room for new ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakSet

from glm_edge.open_files import connections_within, open_files_allowed
from glm_gateway.proxy.connection import Connection


@dataclass(eq=False)
class Opened:
    """Use it from one event loop."""

    _all: WeakSet[Connection] = field(default_factory=WeakSet)
    _num_coming: int = 0

    def note(self, connection: Connection) -> None:
        """Count a connection for as long as it is open."""
        self._all.add(connection)

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[None]:
        """Have room for a connection that is made meanwhile: as many may be open as clients may have.

        Of all groups the one that is idle longest goes. Clients have as many connections at most, and each needs one
        to a group; so there is room while none is kept for nothing.
        """
        most = connections_within(open_files_allowed()) - self._num_coming
        if len(self._all) >= most and sum(connection.is_open for connection in self._all) >= most:
            idle = min((each for each in self._all if each.is_open and each.is_kept), key=_since, default=None)
            if idle is not None:
                idle.close()
                await asyncio.sleep(0)  # then its file is closed
        self._num_coming += 1
        try:
            yield
        finally:
            self._num_coming -= 1


def _since(connection: Connection) -> float:
    return connection.idle_since
