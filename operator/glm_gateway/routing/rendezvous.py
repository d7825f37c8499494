"""Numbers for rendezvous hashing: each name scores by itself, so a name that comes or goes moves its own keys only."""

from functools import lru_cache
from hashlib import blake2b

_ALL = 2**64 - 1


@lru_cache(maxsize=4096)  # names of groups and arms come again; keys of requests push each other out
def number_of(text: str) -> int:
    """Return 64 bits that stand for a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def mixed(number: int) -> int:
    """Return 64 bits of which each depends on all of the number's. Source: the finalizer of splitmix64."""
    number = (number + 0x9E3779B97F4A7C15) & _ALL
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _ALL
    return number ^ (number >> 31)


def spread(number: int) -> int:
    """Return 64 bits that are as good as mixed to see who comes first, at a quarter of the time. Low bits stay poor."""
    return (number * 0x9E3779B97F4A7C15) & _ALL


def share_of(number: int) -> float:
    """Return a number above 0 and below 1 for 64 bits."""
    return ((number >> 12) + 0.5) / 2**52
