"""Random numbers by counter: a number is a function of the request's seed and the token's position, of nothing else."""

import hashlib
import struct

_KEY = struct.Struct("<QQ")
_PERSON = b"glm next token"  # other uses of the same seed and position get other numbers by another word here


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) with 53 random bits, the same on every machine."""
    digest = hashlib.blake2b(_KEY.pack(seed, position), digest_size=8, person=_PERSON).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
