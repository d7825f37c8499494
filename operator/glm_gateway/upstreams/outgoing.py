"""How a request looks outside: another address, another key and another name of the model; nothing of ours. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from glm_gateway.upstreams.passes import via

RawHeaders = Sequence[tuple[bytes, bytes]]

PATHS = {"/v1/chat/completions": "/chat/completions", "/v1/completions": "/completions"}
"""Of ours that OpenAI's API has outside as well, and how each is called behind the url of an upstream."""

_THROUGH = frozenset((b"accept", b"content-type", b"openai-beta"))
_BACK = frozenset((b"cache-control", b"content-type", b"retry-after", b"retry-after-ms"))
_OURS = ("priority",)
"""Fields that mean something to a gateway alone: they have had their effect."""

_LINE_BREAKS = (b"\r", b"\n", b"\x00")
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True)
class Address:
    """host: as TLS checks it. base: what stands before the path."""

    host: str
    port: int
    is_tls: bool
    base: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Return the address in a url. Raises ValueError for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must have no user and no password; a key has its own file")
    is_tls = parts.scheme == "https"
    return Address(parts.hostname, parts.port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))


@dataclass(frozen=True)
class Rewritten:
    """tells_usage: the client itself asked a stream for its usage."""

    body: bytes
    tells_usage: bool


def rewritten(body: bytes, model: str, *, streams: bool) -> Rewritten:
    """Return a body with the name of the model that is asked outside; a stream is asked for its usage.

    All other values stay as the client wrote them. body: a JSON object.
    """
    fields: dict[str, Any] = {name: value for name, value in _decode(body).items() if name not in _OURS}
    fields["model"] = model
    tells_usage = True
    options = _options(fields.get("stream_options"))
    if streams and options is not None:
        tells_usage = options.get("include_usage") is True
        fields["stream_options"] = {**options, "include_usage": True}
    return Rewritten(msgspec.json.encode(fields), tells_usage)


def _options(raw: Any) -> dict[str, Any] | None:
    """Return the options of a stream; None: they are of another kind, which is refused outside."""
    value = None if raw is None else msgspec.json.decode(raw)
    return {} if value is None else value if isinstance(value, dict) else None


def head_of(address: Address, path: str, headers: RawHeaders, key: bytes | None, body_len: int) -> bytes:
    """Return the head of a request. path: of ours, in PATHS. headers: of the client, names in small letters.

    Neither the client's key nor what a gateway says to its workers goes outside. Raises ValueError for a line break.
    """
    lines = [
        f"POST {address.base}{PATHS[path]} HTTP/1.1".encode(),
        b"host: " + address.authority.encode("idna" if not address.host.isascii() else "ascii"),
        b"user-agent: glm-gateway",
        b"via: " + via(headers),
        b"accept-encoding: identity",
        b"content-length: " + str(body_len).encode(),
        *(name + b": " + value for name, value in headers if name in _THROUGH),
    ]
    if key is not None:
        lines.append(b"authorization: Bearer " + key)
    for line in lines:
        if any(each in line for each in _LINE_BREAKS):
            raise ValueError("a header with a line break")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def headers_back(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return those headers of a reply from outside that its client gets."""
    return [(name, value) for name, value in headers if name in _BACK]
