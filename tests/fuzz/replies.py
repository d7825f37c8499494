"""What came back on one connection, taken apart strictly, and what is wrong with it."""

import json
import re
from collections.abc import Sequence

from fuzz.judge import MAX_MESSAGE
from fuzz.wire import Reply

ALLOWED = frozenset({200, 204, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 501})
"""501: of a body that is wrapped otherwise than in chunks. No other failure of ours is deserved: the group answers."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*")
_HEADER = re.compile(rb"[a-z0-9-]+: [^\r\n\x00]*")
_INTERNALS = re.compile(rb"Traceback|\.py\b|site-packages|glm_gateway|glm_worker|httptools|object at 0x|[a-z]Error\b")

_NAMES = re.compile(r"the model '.{1,100}' does not exist|^.*: there is no such path$", re.DOTALL)
"""What is told back because it is the name of something, whatever a client has made it."""


class Malformed(ValueError):
    """What came is no row of replies."""


def replies_in(data: bytes, *, has_head: bool) -> list[Reply]:
    """Return the replies. has_head: whether a request by HEAD may be among those that were sent. Raises Malformed."""
    found = []
    while data:
        head, sign, rest = data.partition(b"\r\n\r\n")
        if not sign:
            raise Malformed(f"a head without an end: {head[:80]!r}")
        status, headers = _head(head)
        body, data = _body(status, headers, rest, has_head=has_head)
        if status >= 200:
            found.append(Reply(status, headers, body))
    return found


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    line = _STATUS.fullmatch(first)
    if line is None:
        raise Malformed(f"no status line: {first[:80]!r}")
    if bad := [each for each in lines if not _HEADER.fullmatch(each)]:
        raise Malformed(f"no header: {bad[0][:80]!r}")
    pairs = [each.split(b": ", 1) for each in lines]
    return int(line[1]), {name.decode(): value.decode("latin-1") for name, value in pairs}


def _body(status: int, headers: dict[str, str], rest: bytes, *, has_head: bool) -> tuple[bytes, bytes]:
    """Return the body, and what comes behind it."""
    if status < 200 or status == 204:
        return b"", rest
    if headers.get("transfer-encoding") == "chunked":
        return _chunked(rest)
    if "content-length" not in headers:  # of HTTP/1.0
        return rest, b""
    length = int(headers["content-length"])
    if has_head and (not rest or rest.startswith(b"HTTP/1.1 ")):
        length = 0
    if len(rest) < length:
        raise Malformed(f"a body of {len(rest)} bytes for {length}")
    return rest[:length], rest[length:]


def _chunked(data: bytes) -> tuple[bytes, bytes]:
    parts = []
    while True:
        size, sign, data = data.partition(b"\r\n")
        if not sign or not re.fullmatch(rb"[0-9a-f]+", size):
            raise Malformed(f"no size of a chunk: {size[:40]!r}")
        length = int(size, 16)
        parts.append(data[:length])
        if data[length : length + 2] != b"\r\n":
            raise Malformed("a chunk without an end")
        data = data[length + 2 :]
        if not length:
            return b"".join(parts), data


def complaints(replies: Sequence[Reply], *, secrets: Sequence[str], allowed: frozenset[int] = ALLOWED) -> list[str]:
    """Return what is wrong with them. secrets: what no error tells back."""
    found = []
    for reply in replies:
        if reply.status not in allowed:
            found.append(f"status {reply.status}: {reply.body[:200]!r}")
        elif reply.status >= 400 and reply.body:
            found += _of_error(reply, secrets)
    return found


def _of_error(reply: Reply, secrets: Sequence[str]) -> list[str]:
    try:
        message = json.loads(reply.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return [f"an error that is none: {reply.body[:100]!r}"]
    found = [] if 0 < len(message) <= MAX_MESSAGE else [f"a message of {len(message)} characters"]
    if leak := _INTERNALS.search(reply.body):
        found.append(f"internals: {leak.group()!r}")
    told = _NAMES.sub("", message)
    return found + [f"the error tells {secret!r}" for secret in secrets if secret in told]
