"""The id of a request: the client's own where it can be sent back, else a new one."""

import os
import re
from collections.abc import Iterable

HEADER = b"x-request-id"
_VISIBLE = re.compile(rb"[!-~]{1,128}")


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id of a request with these headers, whose names are in small letters."""
    said = next((value for name, value in headers if name == HEADER), b"")
    return said.decode("ascii") if _VISIBLE.fullmatch(said) else os.urandom(16).hex()
