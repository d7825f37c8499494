"""The connection to Valkey or Redis: by its URL, with a password and a certificate authority from files."""

from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.maint_notifications import MaintNotificationsConfig

from glm_gateway.limits.store_config import StoreConfig

MAX_CONNECTIONS = 32


class _Password(CredentialProvider):
    """The password in a file, read for each new connection: it may be changed while the gateway runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str]:
        try:
            return (self._path.read_text().strip(),)
        except OSError as error:
            raise ConnectionError(f"{self._path} cannot be read: {error.strerror}") from error

    async def get_credentials_async(self) -> tuple[str]:
        return self.get_credentials()


def client_of(config: StoreConfig) -> Redis:
    """Return a client that tries nothing twice: what becomes of a call that failed is said by who made it."""
    options: dict[str, Any] = {
        "credential_provider": None if config.password_file is None else _Password(config.password_file),
        "max_connections": MAX_CONNECTIONS,
        "timeout": None,  # for a connection of the pool: the time of a call is bounded by who makes it
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "driver_info": None,  # nothing is said of who we are: ACLs need not allow it
    }
    if config.url.startswith("rediss://") and config.ca_file is not None:
        options["ssl_ca_certs"] = str(config.ca_file)
    return Redis.from_pool(BlockingConnectionPool.from_url(config.url, **options))
