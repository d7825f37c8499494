"""The id of a request: the client's own where it can be sent back, else a new one."""

import secrets
from collections.abc import Iterable

HEADER = b"x-request-id"
_MOST = 128


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id of a request with these headers, whose names are in small letters."""
    said = next((value for name, value in headers if name == HEADER), b"")
    is_visible = 0 < len(said) <= _MOST and all(0x21 <= byte <= 0x7E for byte in said)
    return said.decode("ascii") if is_visible else secrets.token_hex(16)
