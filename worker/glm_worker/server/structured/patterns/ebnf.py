"""Patterns as grammars in xgrammar's EBNF."""

from glm_worker.server.structured.patterns import characters
from glm_worker.server.structured.patterns.characters import Ranges
from glm_worker.server.structured.patterns.nodes import Chars, Choice, Node, Repeat, Sequence

_EMPTY = '""'
_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
PLAIN = characters.without(characters.ALL, characters.union(((0, 0x1F),), characters.of('"\\')))
"""What stands in a JSON string as it is."""


def grammar_of(node: Node, *, in_json: bool) -> str:
    """Return a grammar, in xgrammar's EBNF, of the texts that the pattern matches, or of the JSON strings of them.

    A repeat is one of a rule that is one class: those the library counts, all others it writes out.
    """
    writing = _Writing(in_json=in_json)
    body = writing.written(node)
    quote = r'"\""' if in_json else ""
    return "\n".join([f"root ::= {quote} {body or _EMPTY} {quote}", *writing.rules])


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
                return f"({' | '.join(self.written(option) or _EMPTY for option in options)})"
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
