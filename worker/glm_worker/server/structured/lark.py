"""From shapes to rules of a grammar in Lark syntax.

Whatever a rule allows the shape allows; not the other way round. What the grammar leaves out, so that every answer ends
and every reader agrees on it:
- JSON is on one line, as json.dumps writes it: white space that the model chooses has no end with a small one, and a
  bound on it makes the compiled form ten times as large.
- Properties come in the order of the schema. Where a schema names properties there are no others.
- Integers have at most 18 digits, numbers as many after the point and two in the exponent, where the schema has no
  bounds of its own. What may be anything is nested at most ANY_DEPTH deep.
- A part that could never end (an object that requires itself) does not begin.
"""

import json
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager

from glm_worker.server.structured.patterns import ebnf
from glm_worker.server.structured.patterns.fitting import fitted
from glm_worker.server.structured.patterns.nodes import ANY_TEXT, Node
from glm_worker.server.structured.recipe import EbnfPart, Part, Recipe, SchemaPart
from glm_worker.server.structured.refused import Invalid, Refused, TooLarge
from glm_worker.server.structured.schemas.shapes import (
    Anything,
    Boolean,
    Document,
    Either,
    IfType,
    Integer,
    List,
    Named,
    Nothing,
    Null,
    Number,
    Object,
    Shape,
    Text,
    Values,
    with_required_named,
)

ANY_DEPTH = 8
MAX_RULES_BYTES = 512 * 2**10
_INTEGER = r"/-?(0|[1-9][0-9]{0,17})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+\-]?[0-9]{1,2})?/"
_MOST_INTEGER = 10**18 - 1
_MOST_MULTIPLES = 1_000
_MAX_MULTIPLE = 1_000
_MAX_LOOKS = 20_000


class Rules:
    """The rules of one grammar. Equal ones are there once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by body
        self._num_names = 0
        self._lines: list[str] = []
        self._parts: dict[Part, str] = {}
        self._num_bytes = 0
        self.string: str | None = None  # the rest of a string, after its first quote

    def rule(self, body: str) -> str:
        """Return the name of a rule with this body."""
        if body not in self._names:
            self._names[body] = self.new_name()
            self.define(self._names[body], body)
        return self._names[body]

    def new_name(self) -> str:
        """Return a name to define a rule by, for rules that lead back to themselves."""
        self._num_names += 1
        return f"r{self._num_names}"

    def define(self, name: str, body: str) -> None:
        self._num_bytes += len(body)
        if self._num_bytes > MAX_RULES_BYTES:
            raise TooLarge(f"the schema makes a grammar of more than {MAX_RULES_BYTES} bytes")
        self._lines.append(f"{name}: {body}")

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Keep no rule that was made inside where that is refused: it may name others that were not made any more."""
        kept = dict(self._names), list(self._lines), dict(self._parts), self.string
        try:
            yield
        except Refused:
            self._names, self._lines, self._parts, self.string = kept
            raise

    def part(self, part: Part) -> str:
        """Return the rule of something that the compiler makes of its own."""
        name = self._parts.setdefault(part, f"p{len(self._parts)}")
        return self.rule(f"@{name}")

    def recipe(self, start: str, param: str) -> Recipe:
        lark = "\n".join([f"start: {start}", *self._lines])
        return Recipe(lark, {name: part for part, name in self._parts.items()}, param)


def literal(text: str) -> str:
    """Return a text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False)


def one_of(options: Iterable[str]) -> str:
    options = list(dict.fromkeys(options))
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


class JsonRules:
    """Writes the rules of one document's shapes as JSON."""

    def __init__(self, document: Document, rules: Rules) -> None:
        self._named = document.named
        self._rules = rules
        self._ending = _ending_names(document)
        self._of: dict[Shape, str] = {}
        self._of_named: dict[str, str] = {}
        self._unwritten: list[tuple[str, str]] = []  # names, and the rules promised for them

    def ends(self, shape: Shape) -> bool:
        """Whether there is a value of this shape that is finite."""
        return _ends(shape, self._ending)

    def resolved(self, shape: Shape) -> Shape:
        """Return the shape that a name stands for. It must be one that ends."""
        while isinstance(shape, Named):
            shape = self._named[shape.name]
        return shape

    def rule(self, shape: Shape) -> str:
        """Return the rule of a shape. Raises Invalid where nothing can be written."""
        found = self._rule(shape)
        while self._unwritten:  # here and not inside one another: references may be long chains
            name, rule = self._unwritten.pop()
            self._rules.define(rule, self._rule(self._named[name]))
        return found

    def _rule(self, shape: Shape) -> str:
        if not self.ends(shape):
            raise Invalid("the schema allows no value that ends")
        if isinstance(shape, Named):
            return self._named_rule(shape.name)
        if shape not in self._of:
            self._of[shape] = self._rules.rule(self._body(shape))
        return self._of[shape]

    def _named_rule(self, name: str) -> str:
        found = self._of_named.get(name)
        if found is None:
            found = self._of_named[name] = self._rules.new_name()
            self._unwritten.append((name, found))
        return found

    def _body(self, shape: Shape) -> str:
        match shape:
            case Integer():
                return self._integer(shape)
            case Number():
                return self._number(shape)
            case Text():
                return self._text(shape)
            case IfType(inner):
                return self._rule(inner)
            case Either(options):
                return one_of(self._rule(option) for option in options if self.ends(option))
            case List():
                return self._list(shape)
            case Object():
                return self._object(shape)
            case _:
                return self._simple(shape)

    def _simple(self, shape: Shape) -> str:
        match shape:
            case Anything():
                return any_value(self._rules)
            case Null():
                return '"null"'
            case Boolean():
                return '"true" | "false"'
            case Values(texts):
                return one_of(map(literal, texts))
            case _:
                raise AssertionError(shape)

    def _text(self, shape: Text) -> str:
        if shape == Text():
            return string(self._rules)
        return self._rules.part(EbnfPart(ebnf.grammar_of(text_pattern(shape), in_json=True)))

    def _integer(self, shape: Integer) -> str:
        low, high, multiple = shape.low, shape.high, shape.multiple_of
        if multiple > 1:
            return self._multiples(low, high, multiple)
        if low is None and high is None:
            return _INTEGER
        low, high = (
            max(-_MOST_INTEGER, low or -_MOST_INTEGER) if low != 0 else 0,
            _MOST_INTEGER if high is None else high,
        )
        high = min(high, _MOST_INTEGER)
        if low > high:
            raise Invalid(f"an integer of more than {len(str(_MOST_INTEGER))} digits is not supported")
        return self._schema({"type": "integer", "minimum": low, "maximum": high})

    def _multiples(self, low: int | None, high: int | None, multiple: int) -> str:
        if low is not None and high is not None and (high - low) // multiple < _MOST_MULTIPLES:
            return one_of(literal(str(each)) for each in range(-(-low // multiple) * multiple, high + 1, multiple))
        if low is not None or high is not None:
            raise Invalid(
                f"multipleOf is supported with both bounds and at most {_MOST_MULTIPLES} values between, or with none"
            )
        if multiple > _MAX_MULTIPLE:
            raise Invalid(f"multipleOf is {multiple}; without bounds at most {_MAX_MULTIPLE} is supported")
        return self._schema({"type": "integer", "multipleOf": multiple})

    def _number(self, shape: Number) -> str:
        names = {
            "exclusiveMinimum" if shape.without_low else "minimum": shape.low,
            "exclusiveMaximum" if shape.without_high else "maximum": shape.high,
        }
        bounds = {name: bound for name, bound in names.items() if bound is not None}
        return self._schema({"type": "number", **bounds}) if bounds else _NUMBER

    def _schema(self, schema: dict[str, object]) -> str:
        return self._rules.part(SchemaPart(json.dumps(schema)))

    def _list(self, shape: List) -> str:
        first = list(shape.first)
        high = shape.high
        for at, each in enumerate(first):
            if not self.ends(each):
                first, high = first[:at], at if high is None else min(high, at)
                break
        if high is not None:
            first = first[:high]
        rest = shape.rest if high is None or high > len(first) else None
        if rest is not None and not self.ends(rest):
            rest = None
        rules = [self._rule(each) for each in first]
        tail = "" if rest is None else self._more(self._rule(rest), shape.low - len(rules), high, len(rules))
        for at in range(len(rules) - 1, -1, -1):
            item = f"{'' if at == 0 else _COMMA}{rules[at]} {tail}".strip()
            tail = item if at < shape.low else f"({item})?"
        return f'"[" {tail} "]"'

    def _more(self, rule: str, low: int, high: int | None, num_before: int) -> str:
        """Return what repeats a rule, with commas, after so many others: at least low times, high of all together."""
        low = max(low, 0)
        if high == 0:
            return ""
        if num_before:
            return f"({_COMMA}{rule}){_times(low, None if high is None else high - num_before)}"
        body = f"{rule} ({_COMMA}{rule}){_times(max(low - 1, 0), None if high is None else high - 1)}"
        return body if low else f"({body})?"

    def _object(self, shape: Object) -> str:
        shape = with_required_named(shape)
        if not shape.properties:
            return self._map(shape)
        kept = [(name, each, name in shape.required) for name, each in shape.properties if self.ends(each)]
        kept = within(kept, shape.low, shape.high)
        written = [
            f"{literal(f'{json.dumps(name, ensure_ascii=False)}: ')} {self._rule(each)}" for name, each, _ in kept
        ]
        are_required = [is_required for *_, is_required in kept]
        if not any(are_required):
            return f'"{{" {self._optional(written)} "}}"'
        begin = are_required.index(True)
        parts = [f"({each} {_COMMA})?" for each in written[:begin]]
        parts.append(written[begin])
        for each, is_required in zip(written[begin + 1 :], are_required[begin + 1 :], strict=True):
            parts.append(f"{_COMMA}{each}" if is_required else f"({_COMMA}{each})?")
        return f'"{{" {" ".join(parts)} "}}"'

    def _optional(self, written: list[str]) -> str:
        """Return any of these, in order, with commas between; or nothing."""
        tail, options = "", []
        for each in reversed(written):
            options.append(f"{each} {tail}".strip())
            tail = self._rules.rule(f"({_COMMA}{each})? {tail}".strip())
        return f"({one_of(reversed(options))})?" if options else ""

    def _map(self, shape: Object) -> str:
        """Return an object whose properties have no names of their own."""
        if shape.others is None or not self.ends(shape.others) or shape.high == 0:
            if shape.low:
                raise Invalid("the schema allows no value that ends")
            return '"{}"'
        if shape.low > 1:
            raise Invalid("minProperties above 1 is supported only for properties that are named")
        name = self._rule(Text() if shape.names is None else shape.names)
        pair = self._rules.rule(f'{name} ": " {self._rule(shape.others)}')
        return f'"{{" {self._more(pair, shape.low, shape.high, 0)} "}}"'


def any_value(rules: Rules, depth: int = ANY_DEPTH) -> str:
    """Return a rule of any JSON value, nested so deep at most."""
    scalar = rules.rule(f'{string(rules)} | {rules.rule(_NUMBER)} | "true" | "false" | "null"')
    found = rules.rule(f'{scalar} | "[]" | "{{}}"')
    for _ in range(depth - 1):
        found = rules.rule(f"{scalar} | {_any_list(found)} | {any_object(rules, found)}")
    return found


def _any_list(value: str) -> str:
    return f'"[" ({value} ({_COMMA}{value})*)? "]"'


def any_object(rules: Rules, value: str) -> str:
    """Return an object of any properties with such values."""
    pair = rules.rule(f'{string(rules)} ": " {value}')
    return f'"{{" ({pair} ({_COMMA}{pair})*)? "}}"'


def string(rules: Rules) -> str:
    """Return the rule of a JSON string of any text. A rule that goes on with itself is what xgrammar is fast at."""
    if rules.string is None:
        rules.string = rest = rules.new_name()
        plain = ebnf.bracketed(ebnf.PLAIN)
        rules.define(rest, rf"""/"/ | /{plain}/ {rest} | /\\["\\\/bfnrt]/ {rest} | /{_UNICODE_ESCAPE}/ {rest}""")
    return rules.rule(f'"\\"" {rules.string}')


def text_pattern(shape: Text) -> Node:
    """Return the pattern of a string, with its length in it."""
    found = fitted(shape.pattern or ANY_TEXT, shape.low, shape.high)
    if found is None:
        raise Invalid(
            "no string, or none that can be told, has both the length and the pattern that the schema asks for"
        )
    return found


# Of any character but half a surrogate pair, which many readers refuse.
_UNICODE_ESCAPE = r"\\u([0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"
_COMMA = '", " '


def _times(low: int, high: int | None) -> str:
    if high is None:
        return {0: "*", 1: "+"}.get(low, f"{{{low},}}")
    return f"{{{low},{high}}}"


def within(kept: list[tuple[str, Shape, bool]], low: int, high: int | None) -> list[tuple[str, Shape, bool]]:
    """Return so many properties: the first optional ones become required, the last ones are left out."""
    missing = low - sum(is_required for *_, is_required in kept)
    found = []
    for name, shape, is_required in kept:
        is_needed = not is_required and missing > 0
        missing -= is_needed
        found.append((name, shape, is_required or is_needed))
    spare = len(found) if high is None else high - sum(is_required for *_, is_required in found)
    if missing > 0 or spare < 0:
        raise Invalid("minProperties or maxProperties leaves no object with the properties that are named")
    within = []
    for name, shape, is_required in found:
        spare -= not is_required
        if is_required or spare >= 0:
            within.append((name, shape, is_required))
    return within


def _ending_names(document: Document) -> frozenset[str]:
    """Return the names that stand for something finite: those found until there are no more."""
    found: set[str] = set()
    num_looks, waiting = 0, list(document.named)
    while True:
        num_before = len(found)
        for name in reversed(waiting):
            if _ends(document.named[name], found):
                found.add(name)
        num_looks += len(waiting)
        waiting = [name for name in reversed(waiting) if name not in found]  # from the other end now
        if len(found) == num_before:
            return frozenset(found)
        if num_looks > _MAX_LOOKS:
            raise TooLarge("the schema has too many references that lead to one another")


def _ends(shape: Shape, names: Set[str]) -> bool:
    match shape:
        case Nothing():
            return False
        case Named(name):
            return name in names
        case IfType(inner):
            return _ends(inner, names)
        case Either(options):
            return any(_ends(option, names) for option in options)
        case List(first, rest, low):
            needed = [*first[:low], *([rest or Nothing()] if low > len(first) else [])]
            return all(_ends(each, names) for each in needed)
        case Object():
            named = with_required_named(shape)
            return all(_ends(each, names) for name, each in named.properties if name in shape.required)
        case _:
            return True
