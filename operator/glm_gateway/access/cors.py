"""Pages of other origins: which may read replies, and what a browser is told when it asks before. Pure.

No cookie says who asks, so every header may be read, and nothing here lets anybody in: a browser only learns whether
its page may see the reply.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from glm_gateway.access.cors_config import CorsConfig

Headers = list[tuple[bytes, bytes]]

MAX_ASKED_BYTES = 2000
_ANY = "*"
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


@dataclass(frozen=True)
class Cors:
    """origins: in small letters. has_any: every origin may read."""

    origins: frozenset[bytes]
    has_any: bool
    max_age_s: int

    @classmethod
    def of(cls, config: CorsConfig) -> "Cors":
        origins = frozenset(each.lower().encode() for each in config.origins)
        return cls(origins, _ANY in config.origins, config.max_age_seconds)

    def headers(self, asked: Sequence[tuple[bytes, bytes]]) -> Headers:
        """Return what every reply to a request gets, by the headers of the request."""
        vary = [] if self.has_any else [(b"vary", b"origin")]
        allowed = self._allowed(asked)
        if allowed is None:
            return vary
        return [*vary, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", b"*")]

    def preflight(self, asked: Sequence[tuple[bytes, bytes]], methods: Sequence[str]) -> Headers | None:
        """Return what a browser is told before it asks, beside `headers`; None: it may not ask.

        methods: that the path has.
        """
        if self._allowed(asked) is None:
            return None
        wanted = _value(asked, b"access-control-request-headers") or b""
        told: Headers = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", str(self.max_age_s).encode()),
            (b"vary", b"access-control-request-headers"),
        ]
        if len(wanted) <= MAX_ASKED_BYTES and _NAMES.fullmatch(wanted):
            told.append((b"access-control-allow-headers", wanted))
        return told

    def _allowed(self, asked: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """Return the origin to be told; None: the request is of none that may read, or of no page at all."""
        origin = _value(asked, b"origin")
        if origin is None:
            return None
        if self.has_any:
            return _ANY.encode()
        return origin if origin.lower() in self.origins else None


def asks_before(method: str, asked: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request is the question of a browser whether its page may ask."""
    return (
        method == "OPTIONS"
        and _value(asked, b"origin") is not None
        and _value(asked, b"access-control-request-method") is not None
    )


def _value(asked: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of a header that is there once."""
    found = [value for each, value in asked if each == name]
    return found[0] if len(found) == 1 else None
