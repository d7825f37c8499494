"""Who asks, by what a request's head says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from glm_edge.errors.failure import Failure
from glm_gateway.access.credentials import BadCredentials, secret_of
from glm_gateway.access.decide import Caller, Mode, decide, not_one_key
from glm_gateway.access.keys import Keyring


@dataclass(frozen=True, kw_only=True)
class Gate:
    """keyring: returns the keys that are good now; None: none could be read yet. mode: None is never a default.

    tenant_secret: the same in all replicas.
    """

    mode: Mode
    tenant_secret: bytes
    keyring: Callable[[], Keyring | None] = lambda: None

    def caller(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Caller | Failure:
        """Return who asks for a path, as it will be served; or why they may not. Nothing of a body is read for it."""
        try:
            secret = secret_of(headers)
        except BadCredentials as error:
            return not_one_key(str(error))
        return decide(path, secret, self.keyring(), datetime.now(UTC), self.mode, self.tenant_secret)
