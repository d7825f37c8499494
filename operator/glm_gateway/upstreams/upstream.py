"""One server outside: its address, what vouches for it, its key, whether it is in order."""

import asyncio
import logging
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from glm_gateway.proxy.connection import Connection, Head, UpstreamLost
from glm_gateway.proxy.heads import RawHeaders
from glm_gateway.proxy.pool import Patience, Pool
from glm_gateway.routing.retries import RetryBudget
from glm_gateway.surfaces.usage import Told, UsageReader
from glm_gateway.upstreams.breaker import Breaker
from glm_gateway.upstreams.config import UpstreamConfig
from glm_gateway.upstreams.events import Events, TooLong
from glm_gateway.upstreams.outgoing import PATHS, address_of, head_of, headers_back, rewritten

log = logging.getLogger(__name__)

PATIENCE = Patience(connect_s=10.0, idle_s=20.0)  # far away, with TLS; servers close what is idle sooner than groups
MAX_KEY_BYTES = 8192


@dataclass
class Upstream:
    """Use it from one event loop. Its key is read at each request: what changes in the file counts at once."""

    config: UpstreamConfig
    breaker: Breaker = field(default_factory=Breaker)
    retries: RetryBudget = field(default_factory=RetryBudget)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address_of(self.config.url)
        self._pool: Pool | None = None
        if self.config.key_file is not None and not self._address.is_tls:
            log.warning("upstream=%s: its url is http, so its key can be read on the way; use https", self.name)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def is_ready(self) -> bool:
        """Whether it is asked now."""
        return not self.breaker.is_open(self._loop.time())

    @staticmethod
    def takes(path: str) -> bool:
        """Tell whether such a request can go outside at all."""
        return path in PATHS

    async def ask(self, path: str, headers: RawHeaders, body: bytes, *, streams: bool) -> tuple[Connection, "Reply"]:
        """Send a request as it looks there. Raises UpstreamLost."""
        self.breaker.begin(self._loop.time())
        try:
            sent = rewritten(body, self.config.model, streams=streams)
            head = head_of(self._address, path, headers, self._key(), len(sent.body))
        except ValueError as error:  # msgspec's are that as well
            raise UpstreamLost(f"the request cannot be put for it: {error}", has_answered=False) from error
        if self._pool is None:
            self._pool = Pool(self._address.host, self._address.port, self._tls(), PATIENCE)
        return await self._pool.ask(head, [sent.body]), Reply(tells_usage=sent.tells_usage)

    def done(self, connection: Connection) -> None:
        """Keep a connection for later, or close it."""
        if self._pool is None:
            connection.close()
        else:
            self._pool.done(connection)

    def succeed(self) -> None:
        """Note an answer."""
        self.breaker.succeed()

    def fail(self, reason: str) -> None:
        """Note that there was none."""
        log.warning("upstream=%s failed: %s", self.name, reason)
        self.breaker.fail(self._loop.time())

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _tls(self) -> ssl.SSLContext | None:
        if not self._address.is_tls:
            return None
        try:
            found = ssl.create_default_context(cafile=self.config.ca_file)
        except OSError as error:
            raise UpstreamLost(f"its caFile cannot be used: {error}", has_answered=False) from error
        found.set_alpn_protocols(["http/1.1"])
        return found

    def _key(self) -> bytes | None:
        path = self.config.key_file
        if path is None:
            return None
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise UpstreamLost(f"its key cannot be read: {error.strerror}", has_answered=False) from error
        if not key or len(key) > MAX_KEY_BYTES:
            raise UpstreamLost(f"its key has {len(key)} bytes; 1 to {MAX_KEY_BYTES} are allowed", has_answered=False)
        return key


@dataclass
class Reply:
    """Reads one reply. tells_usage: the client gets the event of its usage as well."""

    tells_usage: bool
    _usage: UsageReader | None = None
    _events: Events | None = None

    def headers(self, head: Head) -> list[tuple[bytes, bytes]]:
        kind = head.get(b"content-type")
        self._usage = UsageReader(kind)
        if (kind or b"").lower().startswith(b"text/event-stream"):
            self._events = Events(tells_usage=self.tells_usage)
        return headers_back(head.headers)

    def feed(self, data: bytes) -> bytes:
        assert self._usage is not None, "the head comes first"
        self._usage.feed(data)
        try:
            return data if self._events is None else self._events.feed(data)
        except TooLong as error:
            raise UpstreamLost(str(error), has_answered=True) from error

    def end(self) -> bytes:
        return b"" if self._events is None else self._events.end()

    def idle(self) -> bytes:
        return b"" if self._events is None else b": waiting\n\n"  # only whole events were told

    @property
    def told(self) -> Told | None:
        return None if self._usage is None else self._usage.told


def upstreams_of(configs: Iterable[UpstreamConfig], before: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """Return the upstreams that there are now, by name; what has not changed goes on, and what is gone is closed."""
    found = {each.name: each for each in configs}
    kept = {name: upstream for name, upstream in before.items() if found.get(name) == upstream.config}
    for name in before.keys() - kept.keys():
        before[name].close()
    return {name: kept.get(name) or Upstream(config) for name, config in found.items()}
