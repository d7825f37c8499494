"""A pattern as a tree: what it matches, it matches as a whole."""

from collections.abc import Iterable
from dataclasses import dataclass

from glm_worker.server.structured.patterns import characters
from glm_worker.server.structured.patterns.characters import Ranges


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    options: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """high None: without end."""

    part: "Node"
    low: int
    high: int | None


Node = Chars | Sequence | Choice | Repeat

ANY_TEXT = Repeat(Chars(characters.ALL), 0, None)
NO_TEXT = Sequence(())


def lengths(node: Node) -> tuple[int, int | None]:
    """Return the lengths of the shortest and the longest text that matches; None: without end."""
    match node:
        case Chars():
            return 1, 1
        case Sequence(parts):
            pairs = [lengths(part) for part in parts]
            return sum(low for low, _ in pairs), _total(high for _, high in pairs)
        case Choice(options):
            pairs = [lengths(option) for option in options]
            highs = [high for _, high in pairs if high is not None]
            return min(low for low, _ in pairs), max(highs) if len(highs) == len(pairs) else None
        case Repeat(part, least, most):
            low, high = lengths(part)
            return low * least, 0 if high == 0 else None if high is None or most is None else high * most


def _total(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for each in numbers:
        if each is None:
            return None
        total += each
    return total


def size(node: Node) -> int:
    """Return how many characters and operators the pattern has with its repeats written out, roughly."""
    match node:
        case Chars():
            return 1
        case Sequence(parts):
            return 1 + sum(map(size, parts))
        case Choice(options):
            return 1 + sum(map(size, options))
        case Repeat(part, low, high):
            # A repeat of single characters is counted, not written out.
            return 1 + size(part) * (1 if isinstance(part, Chars) else max(low, high or 0, 1))
