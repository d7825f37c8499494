"""Who asks, and whether they may. Pure: decided on the path that is served, before anything of the body is read.

This is the one way in with keys. Who is known by an issuer's tokens or by a judge outside is asked for elsewhere
(identity/), and is the same Caller: whoever stands behind it never asks how a caller was known.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from glm_edge.errors.failure import Failure
from glm_gateway.access.keys import Keyring
from glm_gateway.surfaces.routes import DOCS_FILES

OPEN_PATHS = frozenset(
    {"/health", "/ping", "/version", "/openapi.json", "/docs", *(f"/docs/{name}" for name in DOCS_FILES)}
)
"""Of the gateway's own: they tell which version of this repository it is, and nothing that is not in it."""

ANYBODY = "anybody"
"""The name of every caller where no key is asked for, and of whoever looks at an open path."""

MIN_TENANT_SECRET = 16  # bytes
_TENANT_BYTES = 16
_AGAIN_S = 5


class Mode(StrEnum):
    """How callers are known. NONE, everybody is let in, is never a default: a deployment says it by name."""

    KEYS = "Keys"
    JWT = "JWT"
    JUDGE = "Judge"
    NONE = "None"


@dataclass(frozen=True)
class Caller:
    """Who asks, as limits, usage and workers know them.

    name: of the key. group: of keys that share limits. role: told to workers. tenant: what workers know a key by, told
    to nobody else.
    """

    name: str
    group: str | None
    role: str | None
    tenant: str


@lru_cache(maxsize=1024)
def tenant_of(name: str, tenant_secret: bytes) -> str:
    """Return what workers know a key by: the same at every replica that has the same secret, and no name to read.

    Raises ValueError for a secret that somebody could guess.
    """
    if len(tenant_secret) < MIN_TENANT_SECRET:
        raise ValueError(
            f"the secret of tenants has {len(tenant_secret)} bytes; it must have at least {MIN_TENANT_SECRET}"
        )
    return hmac.digest(tenant_secret, b"tenant:" + name.encode(), "sha256")[:_TENANT_BYTES].hex()


def decide(
    path: str, secret: str | None, keyring: Keyring | None, now: datetime, mode: Mode, tenant_secret: bytes
) -> Caller | Failure:
    """Return who asks for a path, or why they may not.

    path: decoded once, as it will be served. secret: what the request brought. keyring: None: it was never read.
    now: with its time zone.
    """
    if is_open(path, mode):
        return anybody(tenant_secret)
    if keyring is None:
        return Failure(503, "the gateway cannot read its keys yet", "server_error", None, "unavailable", _AGAIN_S)
    if secret is None:
        return NO_KEY
    found = keyring.known(secret)
    if found is None:
        return unknown_caller("the API key is not known here; it may be mistyped or revoked")
    # Whoever has the secret of a key may know what became of it: nobody else gets here.
    name, key, hash_ = found
    if key.is_expired(now):
        return unknown_caller("the API key has expired")
    if not hash_.is_valid(now):
        return unknown_caller("the API key was rotated, and this secret of it is over; use the new one")
    return Caller(name, key.group, key.role, tenant_of(name, tenant_secret))


def anybody(tenant_secret: bytes) -> Caller:
    """Return who asks where nobody is asked for a name."""
    return Caller(ANYBODY, None, None, tenant_of(ANYBODY, tenant_secret))


def is_open(path: str, mode: Mode) -> bool:
    """Tell whether a path is told to anybody."""
    return mode is Mode.NONE or path in OPEN_PATHS


def unknown_caller(sentence: str) -> Failure:
    """Return a 401. Its code is OpenAI's; Anthropic's shape makes authentication_error of the status."""
    return Failure(401, sentence, "invalid_request_error", None, "invalid_api_key")


NO_KEY = unknown_caller(
    "the request has no API key; send it in the header 'Authorization: Bearer KEY', or in 'x-api-key'"
)
