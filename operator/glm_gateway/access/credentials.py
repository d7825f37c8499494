"""The secret that a request brings, wherever the client of an API puts it."""

from collections.abc import Iterable, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]

CREDENTIALS = (b"authorization", b"x-api-key")
"""The headers that say who asks."""

_BEARER = b"bearer "


class BadCredentials(ValueError):
    """What was sent cannot be one secret. The sentence is for the client, and tells nothing of what was sent."""


def secret_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the secret in `authorization: Bearer` (OpenAI, Z.ai) or `x-api-key` (Anthropic); None: there is none.

    Names are in small letters. Two that differ are refused: proxies and we might not mean the same one.
    """
    found: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            if value[: len(_BEARER)].lower() != _BEARER:
                raise BadCredentials("the header Authorization is not 'Bearer' and a key")
            found.add(value[len(_BEARER) :].strip())
        elif name == b"x-api-key":
            found.add(value.strip())
    if len(found) > 1:
        raise BadCredentials("the request has two different keys, of which one is allowed")
    secret = found.pop() if found else b""
    return secret.decode("utf-8", "surrogateescape") or None
