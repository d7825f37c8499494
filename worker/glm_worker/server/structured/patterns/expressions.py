"""Regular expressions, read into patterns.

The dialect is what ECMA-262 and Python's `re` read alike. What no automaton can keep (references back, looking around)
is refused, and so is what costs too much. Classes such as \\d have what they have in every engine: a text that the
grammar allows matches wherever the client checks it.
"""

from glm_worker.server.structured.patterns import characters
from glm_worker.server.structured.patterns.characters import Ranges
from glm_worker.server.structured.patterns.nodes import ANY_TEXT, Chars, Choice, Node, Repeat, Sequence, size
from glm_worker.server.structured.refused import Invalid, TooLarge

MAX_PATTERN = 2048  # characters
MAX_REPEATS = 10_000  # of one thing
MAX_SIZE = 20_000  # of a pattern whose repeats are written out
_MAX_DEPTH = 32
_CLASSES: dict[str, Ranges] = {
    "d": characters.DIGITS,
    "D": characters.NO_DIGITS,
    "w": characters.WORD,
    "W": characters.NO_WORD,
    "s": characters.SPACES,
    "S": characters.NO_SPACES,
}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_DOT = characters.without(characters.ALL, characters.LINE_ENDS)


def pattern_of(source: str, *, is_searched: bool) -> Node:
    """Return what a pattern matches. is_searched: anywhere in a text, unless anchored; else as a whole.

    Raises Invalid and TooLarge.
    """
    if len(source) > MAX_PATTERN:
        raise TooLarge(f"a pattern has {len(source)} characters; at most {MAX_PATTERN} are allowed")
    node = _Reading(source, is_searched=is_searched).whole()
    if size(node) > MAX_SIZE:
        raise TooLarge(f"a pattern with its repeats written out has more than {MAX_SIZE} characters")
    return node


class _Reading:
    """A pattern being read, one character after the other."""

    def __init__(self, source: str, *, is_searched: bool) -> None:
        self._source = source
        self._at = 0
        self._depth = 0
        self._is_searched = is_searched

    def whole(self) -> Node:
        """Read all of it. Anchors stand at the ends of the whole, or of its options."""
        options = [self._anchored()]
        while self._take("|"):
            options.append(self._anchored())
        if self._at < len(self._source):
            raise self._wrong("unmatched )")
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _anchored(self) -> Node:
        is_begin = self._take("^")
        parts = list(self._sequence().parts)
        is_end = self._take("$")
        if self._is_searched and not is_begin:
            parts.insert(0, ANY_TEXT)
        if self._is_searched and not is_end:
            parts.append(ANY_TEXT)
        if is_end and self._peek() not in ("", "|"):
            raise self._wrong("$ inside a pattern is not supported")
        return Sequence(tuple(parts))

    def _choice(self) -> Node:
        options: list[Node] = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Sequence:
        parts: list[Node] = []
        while (char := self._peek()) and char not in "|)$":
            parts.append(self._quantified(self._atom()))
        return Sequence(tuple(parts))

    def _quantified(self, part: Node) -> Node:
        low: int
        high: int | None
        match self._peek():
            case "*":
                low, high = self._skip(0, None)
            case "+":
                low, high = self._skip(1, None)
            case "?":
                low, high = self._skip(0, 1)
            case "{":
                low, high = self._counts()
            case _:
                return part
        self._take("?")  # lazy: the same texts
        if self._peek() in ("*", "+", "?", "{"):
            raise self._wrong("a quantifier after a quantifier is not supported")
        return Repeat(part, low, high)

    def _skip(self, low: int, high: int | None) -> tuple[int, int | None]:
        self._at += 1
        return low, high

    def _counts(self) -> tuple[int, int | None]:
        end = self._source.find("}", self._at)
        low, comma, high = self._source[self._at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not low.isdecimal() or not low.isascii() or (high and not (high.isdecimal() and high.isascii())):
            raise self._wrong("{ that begins no count must be written \\{")
        if max(len(low), len(high)) > 9 or max(int(low), int(high or 0)) > MAX_REPEATS:
            raise TooLarge(f"a pattern repeats something more than {MAX_REPEATS} times")
        if high and int(high) < int(low):
            raise self._wrong(f"{{{low},{high}}} asks for more than it allows")
        self._at = end + 1
        return int(low), int(high) if high else None if comma else int(low)

    def _atom(self) -> Node:
        char = self._next()
        match char:
            case "(":
                return self._group()
            case "[":
                return Chars(self._class())
            case ".":
                return Chars(_DOT)
            case "\\":
                return Chars(self._escape(is_in_class=False))
            case "^":
                raise self._wrong("^ inside a pattern is not supported")
            case "*" | "+" | "?" | "{":
                raise self._wrong(f"{char} follows nothing that it could repeat")
            case _:
                return Chars(characters.of(char))

    def _group(self) -> Node:
        if self._take("?"):
            kind = self._next()
            if kind == "P":  # as Python names groups
                kind = self._next()
            if kind == "<" and self._peek() not in ("=", "!"):
                end = self._source.find(">", self._at)
                if end < 0:
                    raise self._wrong("the name of a group does not end")
                self._at = end + 1
            elif kind != ":":
                raise self._wrong("a group of this kind (looking around, flags, references) is not supported")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TooLarge(f"a pattern has groups nested more than {_MAX_DEPTH} deep")
        node = self._choice()
        self._depth -= 1
        if not self._take(")"):
            raise self._wrong("$ inside a group is not supported" if self._peek() == "$" else "a group does not end")
        return node

    def _class(self) -> Ranges:
        is_negated = self._take("^")
        found: list[Ranges] = []
        negative: list[Ranges] = []
        if self._peek() == "]":
            raise self._wrong("] at the beginning of a class must be written \\]")
        while self._peek() != "]":
            low = self._member(negative if is_negated else None)
            if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member(None)
                if _single(low) is None or _single(high) is None or low[0][0] > high[0][0]:
                    raise self._wrong("a range of characters has no order")
                low = ((low[0][0], high[0][0]),)
            found.append(low)
        self._at += 1
        ranges = characters.union(*found)
        if is_negated:
            ranges = characters.without(characters.ALL, characters.union(ranges, *negative))
        if not characters.both(ranges, characters.ALL):
            raise self._wrong("a class has no characters")
        return characters.both(ranges, characters.ALL)

    def _member(self, negative: list[Ranges] | None) -> Ranges:
        """Read one member of a class. negative: where to note what engines may count to it, in a negated class."""
        char = self._next()
        if char != "\\":
            return characters.of(char)
        kind = self._peek()
        if negative is not None and kind in _CLASSES:
            negative.append(characters.without(characters.ALL, _CLASSES[kind.swapcase()]))
        return self._escape(is_in_class=True)

    def _escape(self, *, is_in_class: bool) -> Ranges:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return characters.of(_CONTROLS[char])
        if char == "x":
            return self._code(2)
        if char == "u":
            if self._take("{"):
                end = self._source.find("}", self._at)
                ranges = self._code(end - self._at)
                self._at += 1
                return ranges
            return self._code(4)
        if char == "b" and is_in_class:
            return characters.of("\b")
        if char.isalnum():
            raise self._wrong(f"\\{char} is not supported")
        return characters.of(char)

    def _code(self, length: int) -> Ranges:
        digits = self._source[self._at : self._at + length] if 0 < length <= 6 else ""
        try:
            code = int(digits, 16) if digits.isalnum() and len(digits) == length else -1
        except ValueError:
            code = -1
        if code < 0 or not characters.both(((code, code),), characters.ALL):
            raise self._wrong("an escape names no character")
        self._at += length
        return ((code, code),)

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise self._wrong("it ends too early")
        self._at += 1
        return char

    def _take(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _wrong(self, what: str) -> Invalid:
        return Invalid(f"a pattern cannot be used: at character {self._at}, {what}")


def _single(ranges: Ranges) -> int | None:
    return ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None
