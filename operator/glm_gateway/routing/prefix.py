"""What a prompt begins with, as a chain of hashes: the name under which is remembered which group has computed it.

A hash stands for all bytes from the beginning up to the end of its block, so two prompts have as many hashes in common
as they have whole blocks in common. It is keyed with a secret and the tenant: nobody can make a prompt that has the
hashes of another one, and no tenant learns from latencies what another one asked.
"""

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from itertools import accumulate
from typing import cast

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GRAIN_BYTES = 512
"""Of the first blocks. About 128 tokens: two KV blocks of the largest size that workers have. A finer grain would find
some tokens more of a prefix, which take a group under 10 ms to compute, and cost a hash for each."""

BLOCKS_A_SIZE = 16
"""Then blocks are twice as long. What is lost at the end of a prefix to whole blocks is at most an eighth of it, and
248 KiB have 80 blocks instead of 496."""

SIZES = tuple(GRAIN_BYTES << times for times in range(5))
MAX_BLOCKS = len(SIZES) * BLOCKS_A_SIZE
ENDS = tuple(accumulate(size for size in SIZES for _ in range(BLOCKS_A_SIZE)))
"""Where blocks end, in bytes. What comes after the last is not hashed: prompts alike up to there are alike enough."""

NONCE_BYTES = 12

MAX_VALUES = 8_192
"""Values of JSON that are looked at. A turn has four or so; a body that is all brackets costs no more than this."""

_OPEN, _CLOSE, _END = b"\xfe", b"\xfd", b"\xff"
"""Marks between texts. UTF-8 has no such bytes, so two different conversations never make the same bytes. Token ids
may, and a client that sends both as the same tenant confuses nobody but itself."""


class Prefix(msgspec.Struct, frozen=True):
    """The hashes of the blocks of a prompt, and how long all of it is.

    num_bytes: of its texts, with some for each turn, about as the template adds; without what MAX_VALUES leaves out.
    """

    hashes: tuple[int, ...] = ()
    num_bytes: int = 0


class _Mark:
    __slots__ = ("sign",)

    def __init__(self, sign: bytes) -> None:
        self.sign = sign


_CLOSES = _Mark(_CLOSE)


def prefix_key(secret: bytes, tenant: str) -> bytes:
    """Return the key for prefix_of: 32 bytes. secret: the same in all replicas of a gateway, so that they agree."""
    return blake2b(tenant.encode("utf-8", "surrogatepass"), key=blake2b(secret).digest(), digest_size=32).digest()


def prefix_of(parts: Iterable[object], key: bytes) -> Prefix:
    """Return the prefix of a prompt; never raises, whatever the parts are, and does a bounded amount of work.

    parts: what the request's template renders, in its order: tools, system prompt, turns; for a completion its prompt.
    Each is as a JSON decoder made it: text, token ids, or lists and objects of them. Role and content of an object go
    first, then the rest as it came. key: from prefix_key.
    """
    kept: list[bytes] = []
    num_bytes = num_kept = 0
    for piece in _pieces(parts):
        num_bytes += len(piece)
        if num_kept < ENDS[-1]:
            kept.append(piece)
            num_kept += len(piece)
    return Prefix(_chain(b"".join(kept), key), num_bytes)


def _chain(data: bytes, key: bytes) -> tuple[int, ...]:
    authenticate = AESGCM(key).encrypt  # ten times as fast as sha256 on processors of servers. Who has not the key
    # knows no tag, and is shown none: so two blocks behind one beginning may have the same nonce
    view, begin, tag = memoryview(data), 0, bytes(NONCE_BYTES)
    hashes = []
    for end in ENDS:
        if end > len(data):
            break
        tag = authenticate(tag[:NONCE_BYTES], b"", view[begin:end])
        hashes.append(int.from_bytes(tag[:8], "big"))
        begin = end
    return tuple(hashes)


def _pieces(parts: Iterable[object]) -> Iterable[bytes]:
    """Yield the bytes of all texts, with marks between. No recursion: it has a limit, and clients know it."""
    todo: list[object] = list(parts)[::-1]
    for _ in range(MAX_VALUES):
        if not todo:
            return
        value = todo.pop()
        if isinstance(value, str):
            yield value.encode("utf-8", "surrogatepass")
            yield _END
        elif isinstance(value, _Mark):
            yield value.sign
        elif isinstance(value, dict):
            yield _OPEN
            todo.append(_CLOSES)
            todo.extend(_members(value))
        elif isinstance(value, list | tuple):
            ids = _token_ids(value)
            yield _OPEN if ids is None else ids + _END
            if ids is None:
                todo.append(_CLOSES)
                todo.extend(value[MAX_VALUES - 1 :: -1])
        else:
            yield _scalar(value) + _END


def _members(found: dict[object, object]) -> Iterable[object]:
    """Yield keys and values of an object, last first: they go on a stack."""
    first = ("role", "content")
    for key in [*first, *(key for key in found if key not in first)][::-1]:
        if key in found:
            yield found[key]
            yield key


def _token_ids(value: list[object] | tuple[object, ...]) -> bytes | None:
    """Return token ids as four bytes each, about as many as a token has in words; None if these are none."""
    if not value or type(value[0]) is not int:
        return None
    try:
        return array("I", cast(list[int], value)).tobytes()  # it looks at each itself
    except (TypeError, OverflowError, ValueError):
        return None


def _scalar(value: object) -> bytes:
    """Return bytes for what is no text: seldom a part of a prompt, and never long."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, int):  # not as decimal: that is slow for a number of a million digits, and refused
        return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    if value is None or isinstance(value, float):
        return repr(value).encode()
    return type(value).__name__.encode("utf-8", "surrogatepass")
