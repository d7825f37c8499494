"""Which promise a request has, as far as a gateway can know before anything of it is rendered. Pure."""

from collections.abc import Sequence

from glm_gateway.ladder.config import SloClassConfig, SloConfig

RawHeaders = Sequence[tuple[bytes, bytes]]

NEVER_THROUGH = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
    )
)
"""Headers that no class makes go to a worker, beside all that begin with x-glm-: secrets, and what connections are."""


def class_of(slo: SloConfig | None, *, mode: str | None, headers: RawHeaders) -> SloClassConfig | None:
    """Return the first class that surely matches a request; None: no class does, and nothing is promised.

    mode: of thinking. `auto`, or None: only the worker decides it, so classes of one mode do not match. headers: of the
    client, names in small letters.
    """
    for each in slo.classes if slo is not None else ():
        if each.thinking not in ("any", mode):
            continue
        wanted = each.header
        if wanted is None or (wanted.name.lower().encode(), wanted.value.encode()) in headers:
            return each
    return None


def first_token_s(found: SloClassConfig | None) -> float | None:
    """Return within how many seconds the first token is promised; None: that is not."""
    return None if found is None else found.thresholds_s.get("ttft")


def told_headers(slo: SloConfig | None, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return the headers by which a worker finds the class of a request: those that classes name."""
    names = {each.header.name.lower().encode() for each in (slo.classes if slo is not None else ()) if each.header}
    return [(name, value) for name, value in headers if name in names and _may_go(name)]


def _may_go(name: bytes) -> bool:
    return name not in NEVER_THROUGH and not name.startswith(b"x-glm-")
