"""Tokens of an issuer: which key signed one, whether it is good now, and what it claims.

Only algorithms whose keys are public: a token cannot choose another one, nor bring or name a key of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEEWAY_S = 30
"""That the clocks of an issuer and of ours may be apart."""

MAX_BYTES = 16 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048


class BadToken(ValueError):
    """The sentence is for who sent the token, and tells nothing of what is in it."""


class BadKeySet(ValueError):
    """What an issuer tells is no set of keys."""


@dataclass(frozen=True)
class TokenHead:
    """kid: names the key among the issuer's; None: the token does not say."""

    kid: str | None
    algorithm: str


class KeySet:
    """The keys of an issuer that tokens may be signed with."""

    def __init__(self, keys: Sequence[jwt.PyJWK]) -> None:
        self.num_keys = len(keys)
        self._keys = list(keys)

    def find(self, head: TokenHead) -> jwt.PyJWK | None:
        """Return the key of a token; without a kid the only one of its algorithm."""
        able = [key for key in self._keys if key.algorithm_name == head.algorithm]
        if head.kid is not None:
            able = [key for key in able if key.key_id == head.kid]
        return able[0] if len(able) == 1 or (able and head.kid is not None) else None


def key_set_in(document: object) -> KeySet:
    """Return the keys of a JWKS that we take; others, as for encryption, are left out. Raises BadKeySet."""
    said = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(said, list):
        raise BadKeySet("it has no list of keys")
    if len(said) > MAX_KEYS:
        raise BadKeySet(f"it has {len(said)} keys; allowed are {MAX_KEYS}")
    keys = [key for each in said if isinstance(each, dict) and (key := _key(each)) is not None]
    if not keys:
        raise BadKeySet(f"it has no key for signatures by {', '.join(ALGORITHMS)}")
    return KeySet(keys)


def _key(said: dict[str, Any]) -> jwt.PyJWK | None:
    if said.get("use", "sig") != "sig" or "d" in said:  # whoever publishes a private key has no key
        return None
    try:
        key = jwt.PyJWK(said)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return key


def head_of(token: str) -> TokenHead:
    """Return which key a token says to be signed with. Raises BadToken."""
    if len(token) > MAX_BYTES:
        raise BadToken(f"the token is longer than {MAX_BYTES} bytes")
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("the credential is no token (JWT), which is what is taken here") from None
    algorithm, kid = head.get("alg"), head.get("kid")
    if algorithm not in ALGORITHMS:
        raise BadToken(f"the token is signed in another way than by {', '.join(ALGORITHMS)}")
    return TokenHead(kid if isinstance(kid, str) else None, algorithm)


_SENTENCES: tuple[tuple[type[Exception], str], ...] = (  # the first that fits counts
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not good yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks one of the claims exp, iss and aud"),
    (jwt.InvalidSignatureError, "the token's signature is not right"),
)


def claims_of(token: str, key: jwt.PyJWK, *, issuer: str, audience: str) -> Mapping[str, Any]:
    """Return what a token claims that is signed with the key and good now. Raises BadToken."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud"]},
        )
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        told = next((sentence for kind, sentence in _SENTENCES if isinstance(error, kind)), "the token is malformed")
        raise BadToken(told) from None
    return claims
