"""Who asks, by what a request's head says."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from glm_edge.errors.failure import Failure
from glm_gateway.access.credentials import BadCredentials, RawHeaders, secret_of
from glm_gateway.access.decide import NO_KEY, Caller, Mode, anybody, decide, is_open, tenant_of, unknown_caller
from glm_gateway.access.keys import Keyring
from glm_gateway.access.who import Who
from glm_gateway.identity.issuer import Issuer
from glm_gateway.identity.judge import Judge


@dataclass(frozen=True, kw_only=True)
class Gate:
    """keyring: returns the keys that are good now; None: none could be read yet. mode: None is never a default.

    tenant_secret: the same in all replicas. issuer, judge: each with its mode.
    """

    mode: Mode
    tenant_secret: bytes
    keyring: Callable[[], Keyring | None] = lambda: None
    issuer: Issuer | None = None
    judge: Judge | None = None

    async def caller(self, method: str, path: str, headers: RawHeaders) -> Caller | Failure:
        """Return who asks for a path, as it will be served; or why they may not. Nothing of a body is read for it."""
        if is_open(path, self.mode):
            return anybody(self.tenant_secret)
        try:
            secret = secret_of(headers)
        except BadCredentials as error:
            return unknown_caller(str(error))
        if self.mode is Mode.KEYS:
            return decide(path, secret, self.keyring(), datetime.now(UTC), self.mode, self.tenant_secret)
        if secret is None:
            return NO_KEY
        found = await self._who(method, path, headers, secret)
        if isinstance(found, Failure):
            return found
        return Caller(found.name, found.group, found.role, tenant_of(found.name, self.tenant_secret))

    async def _who(self, method: str, path: str, headers: RawHeaders, secret: str) -> Who | Failure:
        if self.mode is Mode.JWT:
            assert self.issuer is not None
            return await self.issuer.who(secret)
        assert self.judge is not None
        return await self.judge.who(method, path, headers)
