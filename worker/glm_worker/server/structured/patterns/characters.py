"""Sets of characters, as sorted ranges of code points that do not touch."""

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)  # no text has them


def union(*sets: Iterable[tuple[int, int]]) -> Ranges:
    """Return what is in any of these ranges, in any order."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(each for ranges in sets for each in ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def without(ranges: Ranges, others: Ranges) -> Ranges:
    """Return what is in the first set and not in the second."""
    left: list[tuple[int, int]] = []
    for start, high in ranges:
        low = start
        for taken_low, taken_high in others:
            if taken_high < low or taken_low > high:
                continue
            if taken_low > low:
                left.append((low, taken_low - 1))
            low = taken_high + 1
        if low <= high:
            left.append((low, high))
    return tuple(left)


def both(one: Ranges, other: Ranges) -> Ranges:
    found = [(max(low, least), min(high, most)) for low, high in one for least, most in other]
    return union((low, high) for low, high in found if low <= high)


def of(text: str) -> Ranges:
    return union((ord(char), ord(char)) for char in text)


def has(ranges: Ranges, char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in ranges)


EVERYTHING: Ranges = ((0, _LAST),)
ALL: Ranges = ((0, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, _LAST))
DIGITS: Ranges = ((0x30, 0x39),)
WORD = union(DIGITS, ((0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)))
_ASCII: Ranges = ((0, 0x7F),)
_IDEOGRAPHS: Ranges = ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF))
_SPACES = union(
    of("\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"), ((0x2000, 0x200A),)
)
LINE_ENDS = of("\n\r\u2028\u2029")
# Engines disagree on what is a digit, a word or a space beyond ASCII. These are in the class for all of them.
SPACES = of("\t\n\v\f\r ")
NO_DIGITS = union(without(_ASCII, DIGITS), ((0xA1, 0x24F),), _IDEOGRAPHS)
NO_WORD = union(without(_ASCII, WORD), ((0x2010, 0x2027), (0x2030, 0x203E), (0x3001, 0x3003)))
NO_SPACES = without(ALL, _SPACES)
