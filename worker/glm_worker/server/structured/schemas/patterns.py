"""Regular expressions, read into a tree of what matches as a whole, and written for a grammar.

The dialect is what ECMA-262 and Python's `re` read alike. What no automaton can keep (references back, looking around)
is refused, and so is what costs too much. Classes such as \\d have what they have in every engine: a text that the
grammar allows matches wherever the client checks it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from glm_worker.server.structured.schemas import characters
from glm_worker.server.structured.schemas.characters import Ranges
from glm_worker.server.structured.schemas.refused import Invalid, TooLarge

MAX_PATTERN = 2048  # characters
MAX_REPEATS = 10_000  # of one thing
MAX_SIZE = 20_000  # of a pattern whose repeats are written out
_MAX_DEPTH = 32


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

ANY_CHARACTER = Chars(characters.ALL)
ANY_TEXT = Repeat(ANY_CHARACTER, 0, None)
NO_TEXT = Sequence(())


def literal(text: str) -> Node:
    return Sequence(tuple(Chars(characters.of(char)) for char in text))


def pattern_of(source: str, *, is_searched: bool) -> Node:
    """Return what a pattern matches. is_searched: anywhere in a text, unless anchored; else as a whole.

    Raises Invalid and TooLarge.
    """
    if len(source) > MAX_PATTERN:
        raise TooLarge(f"a pattern has {len(source)} characters; at most {MAX_PATTERN} are allowed")
    node = _Reading(source, is_searched=is_searched).whole()
    if _size(node) > MAX_SIZE:
        raise TooLarge(f"a pattern with its repeats written out has more than {MAX_SIZE} characters")
    return node


def fitted(node: Node, low: int, high: int | None) -> Node | None:
    """Return a pattern that matches only what this one does, and only texts of so many characters; None if none fits.

    It may match less than all of them: how the room is divided among parts that repeat is fixed.
    """
    shortest, longest = _lengths(node)
    if shortest >= low and (high is None or (longest is not None and longest <= high)):
        return node
    if (high is not None and shortest > high) or (longest is not None and longest < low):
        return None
    match node:
        case Chars():
            return None  # one character fits or does not
        case Choice(options):
            fitting = [found for option in options if (found := fitted(option, low, high)) is not None]
            return Choice(tuple(fitting)) if fitting else None
        case Repeat(part, least, most):
            part_low, part_high = _lengths(part)
            if part_low != part_high or not part_low:
                return None if least or low else NO_TEXT
            least = max(least, -(-low // part_low))
            most = _least(most, None if high is None else high // part_low)
            return Repeat(part, least, most) if most is None or least <= most else None
        case Sequence(parts):
            return _fitted_sequence(parts, low, high)


def _fitted_sequence(parts: "tuple[Node, ...]", low: int, high: int | None) -> Node | None:
    """Give every part its least, the first that can grow what is missing, and share what is left."""
    lengths = [_lengths(part) for part in parts]
    growing = [at for at, (shortest, longest) in enumerate(lengths) if longest != shortest]
    shortest = sum(each for each, _ in lengths)
    missing, spare = max(0, low - shortest), None if high is None else high - max(low, shortest)
    found = list(parts)
    for count, at in enumerate(growing):
        least, most = lengths[at]
        takes = missing if most is None else min(missing, most - least)
        missing -= takes
        share = None if spare is None else spare // (len(growing) - count)
        new = fitted(parts[at], least + takes, None if share is None else least + takes + share)
        if new is None:
            return None
        found[at] = new
        if spare is not None:
            now = _lengths(new)[1]
            assert now is not None
            spare -= max(0, now - least - takes)
    return None if missing else Sequence(tuple(found))


def _lengths(node: Node) -> tuple[int, int | None]:
    """Return the lengths of the shortest and the longest text that matches; None: without end."""
    match node:
        case Chars():
            return 1, 1
        case Sequence(parts):
            pairs = [_lengths(part) for part in parts]
            return sum(low for low, _ in pairs), _total(high for _, high in pairs)
        case Choice(options):
            pairs = [_lengths(option) for option in options]
            highs = [high for _, high in pairs if high is not None]
            return min(low for low, _ in pairs), max(highs) if len(highs) == len(pairs) else None
        case Repeat(part, least, most):
            low, high = _lengths(part)
            return low * least, 0 if high == 0 else None if high is None or most is None else high * most


def _total(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for each in numbers:
        if each is None:
            return None
        total += each
    return total


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _size(node: Node) -> int:
    """Return how many characters and operators the pattern has with its repeats written out, roughly."""
    match node:
        case Chars():
            return 1
        case Sequence(parts):
            return 1 + sum(map(_size, parts))
        case Choice(options):
            return 1 + sum(map(_size, options))
        case Repeat(part, low, high):
            # A repeat of single characters is counted, not written out.
            return 1 + _size(part) * (1 if isinstance(part, Chars) else max(low, high or 0, 1))


def ebnf(node: Node, *, in_json: bool) -> str:
    """Return a grammar, in xgrammar's EBNF, of the texts that the pattern matches, or of the JSON strings of them.

    A repeat is one of a rule that is one class: those the library counts, all others it writes out.
    """
    writing = _Writing(in_json=in_json)
    body = writing.written(node)
    quote = r'"\""' if in_json else ""
    return "\n".join([f"root ::= {quote} {body or EMPTY} {quote}", *writing.rules])


EMPTY = '""'


class _Writing:
    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json
        self._classes: dict[str, str] = {}
        self.rules: list[str] = []

    def written(self, node: Node) -> str:
        match node:
            case Chars(ranges):
                return self._chars(ranges)
            case Sequence(parts):
                return " ".join(filter(None, map(self.written, parts)))
            case Choice(options):
                return f"({' | '.join(self.written(option) or EMPTY for option in options)})"
            case Repeat(part, low, high):
                inner = self.written(part)
                if not inner or high == 0:
                    return ""
                if (low, high) == (1, 1):
                    return f"({inner})"
                return f"{self._rule(inner)}{_quantifier(low, high)}"

    def _chars(self, ranges: Ranges) -> str:
        if not self._in_json:
            return bracketed(ranges)
        plain = characters.both(ranges, PLAIN)
        if plain:  # what needs an escape is left out where there is something else
            return bracketed(plain)
        escapes = "".join(escape for char, escape in _ESCAPES.items() if characters.has(ranges, char))
        return rf'"\\" {bracketed(characters.of(escapes))}'

    def _rule(self, body: str) -> str:
        if body not in self._classes:
            self._classes[body] = f"c{len(self._classes)}"
            self.rules.append(f"{self._classes[body]} ::= {body}")
        return self._classes[body]


def bracketed(ranges: Ranges) -> str:
    """Return a class of characters as EBNF and regular expressions write it.

    One that goes to the end of Unicode is written by what it leaves out: xgrammar is a hundred times as fast at those.
    """
    if ranges[-1][1] == characters.ALL[-1][1]:
        return f"[^{''.join(map(_range, characters.without(characters.EVERYTHING, ranges)))}]"
    return f"[{''.join(map(_range, ranges))}]"


def _range(bounds: tuple[int, int]) -> str:
    low, high = map(_char, bounds)
    return low if bounds[0] == bounds[1] else f"{low}-{high}"


def _char(code: int) -> str:
    char = chr(code)
    if char.isascii() and char.isalnum():
        return char
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _quantifier(low: int, high: int | None) -> str:
    match low, high:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
        case _:
            return f"{{{low},{'' if high is None else high}}}"


def is_writable(node: Node) -> bool:
    """Whether a JSON string can hold every character that the pattern must have."""
    match node:
        case Chars(ranges):
            return bool(characters.both(ranges, PLAIN)) or any(characters.has(ranges, char) for char in _ESCAPES)
        case Sequence(parts):
            return all(map(is_writable, parts))
        case Choice(options):
            return all(map(is_writable, options))
        case Repeat(part):
            return is_writable(part)


_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
PLAIN = characters.without(characters.ALL, characters.union(((0, 0x1F),), characters.of('"\\')))
"""What stands in a JSON string as it is."""


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
