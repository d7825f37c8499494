"""From functions on offer to the rules of their calls in the GLM format.

    <tool_call>NAME
    <arg_key>KEY</arg_key>
    <arg_value>VALUE</arg_value>
    </tool_call>

The newlines are optional, as GLM-4.7 writes none. Tags are tokens, by their ids. A string
stands raw, anything else as JSON; what may be both is written so that text/argument_json.py reads it as meant.
Arguments come in any order where there are at most MAX_FREE of them, else in that of the schema.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from glm_worker.server.structured.formats import Function
from glm_worker.server.structured.lark import JsonRules, Rules, literal, one_of, text_pattern, within
from glm_worker.server.structured.patterns import characters, ebnf
from glm_worker.server.structured.patterns.nodes import Chars, Node, Repeat
from glm_worker.server.structured.recipe import EbnfPart
from glm_worker.server.structured.refused import Invalid, Refused
from glm_worker.server.structured.schemas import carried
from glm_worker.server.structured.schemas.reading import read_schema
from glm_worker.server.structured.schemas.shapes import (
    ANYTHING,
    Anything,
    Boolean,
    Document,
    Either,
    IfType,
    Integer,
    List,
    Named,
    Null,
    Number,
    Object,
    Shape,
    Text,
    Values,
    either,
    kinds,
    with_required_named,
)

MAX_FREE = 6  # arguments in any order: each set of them that is left is a rule
_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_KEY, _END_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_VALUE = "<arg_value>", "</arg_value>"
ANY_TEXT = f"/{ebnf.bracketed(characters.ALL)}*/"
NEWLINE = '"\\n"?'
_KEY_TEXT = Repeat(Chars(characters.without(characters.ALL, characters.of("<>\n\r"))), 1, 64)
_BEGINS = {"number": "-0123456789", "boolean": "tTfF", "array": "[", "object": "{"}


class CallTokens:
    """The tags of calls, as a grammar names them. token_id: of a tag in this vocabulary, None where it has none."""

    def __init__(self, token_id: Callable[[str], int | None]) -> None:
        self._token_id = token_id

    @property
    def has_calls(self) -> bool:
        """Whether calls can be told from text: all their tags are tokens."""
        return all(self._token_id(tag) is not None for tag in (_CALL, _END_CALL, _KEY, _END_KEY, _VALUE, _END_VALUE))

    def __getitem__(self, tag: str) -> str:
        return f"<[{self._token_id(tag)}]>"


@dataclass(frozen=True)
class CallRules:
    """Writes calls into the rules of a grammar."""

    rules: Rules
    tokens: CallTokens

    def one_of(self, bodies: Iterable[str]) -> str:
        """Return the rule of a call of one of these functions."""
        return self.rules.rule(f"{self.tokens[_CALL]} {one_of(bodies)} {self.tokens[_END_CALL]}")

    def body(self, function: Function) -> str:
        """Return the rule of what stands between the tags of a call. Raises Refused where the function is strict."""
        return self.rules.rule(f"{literal(function.name)} {NEWLINE} {self._arguments(function)}")

    def _arguments(self, function: Function) -> str:
        if not function.parameters:
            return ""
        try:
            with self.rules.all_or_none():
                return self._by_schema(function.parameters)
        except Refused:
            if function.is_strict:
                raise
            return self._by_name(function.parameters)

    def _by_schema(self, parameters: Mapping[str, object]) -> str:
        document = read_schema(parameters)
        json_rules = JsonRules(document, self.rules)
        options = _options(document.root, document)
        objects = [each for each in options if json_rules.ends(each)]
        if not objects and any(isinstance(each, Object) for each in options):
            raise Invalid("no arguments can validate: one that is required can have no value")
        if not objects or not all(isinstance(each, Object) for each in objects):
            raise Invalid("the parameters of a function must be an object")
        # `{"properties": {}}` alone is how clients say that a function takes no arguments.
        is_open = parameters.get("additionalProperties", "properties" not in parameters) is not False
        return one_of(
            self._object(each, document, json_rules, is_open=is_open) for each in objects if isinstance(each, Object)
        )

    def _by_name(self, parameters: Mapping[str, object]) -> str:
        """Return arguments of the names that the schema has, with any values: it asks for more than can be kept."""
        properties = parameters.get("properties")
        names = [literal(name) for name in properties] if isinstance(properties, Mapping) else []
        names = names or [self._pattern(_KEY_TEXT)]
        return self.rules.rule(f"({self._argument(one_of(names), self._any_text())})*")

    def _object(self, shape: Object, document: Document, json_rules: JsonRules, *, is_open: bool) -> str:
        shape = with_required_named(shape)
        if not shape.properties:
            has_any = is_open and shape.others is not None and json_rules.ends(shape.others)
            if shape.low or (has_any and (shape.high is not None or shape.names is not None)):
                raise Invalid("a function whose arguments have no names cannot say how many, or what they are called")
            if not has_any or shape.others is None:
                return ""
            carried.check_value("of any name", shape.others, document.named)
            key = self._pattern(_KEY_TEXT)
            return self.rules.rule(f"({self._argument(key, self._value(shape.others, document, json_rules))})*")
        kept = [(name, each, name in shape.required) for name, each in shape.properties if json_rules.ends(each)]
        for name, each, _ in kept:
            carried.check_name(name)
            carried.check_value(name, each, document.named)
        arguments = [
            (self.rules.rule(self._argument(literal(name), self._value(each, document, json_rules))), is_required)
            for name, each, is_required in within(kept, shape.low, shape.high)
        ]
        if len(arguments) <= MAX_FREE:
            return self._in_any_order(arguments)
        return " ".join(rule if is_required else f"({rule})?" for rule, is_required in arguments)

    def _in_any_order(self, arguments: list[tuple[str, bool]]) -> str:
        """Return the rule of what is left when none was written yet."""
        left: dict[int, str] = {0: '""'}
        for chosen in range(1, 1 << len(arguments)):
            options = [
                f"{rule} {left[chosen & ~(1 << at)]}".removesuffix(' ""')
                for at, (rule, _) in enumerate(arguments)
                if chosen >> at & 1
            ]
            is_done = not any(is_required for at, (_, is_required) in enumerate(arguments) if chosen >> at & 1)
            left[chosen] = self.rules.rule(f"({one_of(options)})?" if is_done else one_of(options))
        return left[(1 << len(arguments)) - 1] if arguments else ""

    def _argument(self, key: str, value: str) -> str:
        tokens = self.tokens
        begin = f"{tokens[_KEY]} {key} {tokens[_END_KEY]} {NEWLINE} {tokens[_VALUE]}"
        return f"{begin} {value} {tokens[_END_VALUE]} {NEWLINE}"

    def _pattern(self, pattern: Node) -> str:
        return self.rules.part(EbnfPart(ebnf.grammar_of(pattern, in_json=False)))

    def _any_text(self) -> str:
        """Return a value as it stands, up to its closing tag, which is a token and so never text."""
        return self.rules.rule(ANY_TEXT)

    def _value(self, shape: Shape, document: Document, json_rules: JsonRules) -> str:
        """Return the value of an argument: strings raw, others as JSON."""
        options = [each for each in _options(shape, document) if json_rules.ends(each)]
        if ANYTHING in options:
            return self._any_text()
        words = [
            value for each in options if isinstance(each, Values) for value in each.values if isinstance(value, str)
        ]
        texts = [each for each in options if isinstance(each, Text)]
        others = [each for option in options for each in _without_strings(option)]
        guarded = frozenset().union(*(kinds(each) for each in others if _is_bounded(each))) - {"null"}
        written = [literal(word) for word in dict.fromkeys(words)]
        written += [self._text(text, guarded) for text in texts]
        if others and not (texts and texts[0] == Text() and not guarded):
            written.append(json_rules.rule(either(others)))
        return one_of(written)

    def _text(self, text: Text, guarded: frozenset[str]) -> str:
        """Return a string as it stands. guarded: the types of JSON that it must not be taken for."""
        begins = "".join(begin for kind, begin in _BEGINS.items() if kind in guarded)
        if text == Text():
            if not begins:
                return self._any_text()
            first = characters.without(
                ((0x21, 0x7E), (0xC0, 0x24F), (0x3041, 0x3096), (0x4E00, 0x9FFF)), characters.of(f"{begins}<")
            )
            return self.rules.rule(f"(/{ebnf.bracketed(first)}/ {self._any_text()})?")
        if begins:
            raise Invalid(
                "an argument that may be a string with a pattern or length, or else a bounded value, is not supported"
            )
        return self._pattern(text_pattern(text))


def _options(shape: Shape, document: Document) -> list[Shape]:
    """Return what a shape may be, names and alternatives resolved, each once."""
    found: dict[Shape, None] = {}
    seen: set[str] = set()
    waiting = [shape]
    while waiting:
        match waiting.pop(0):
            case Named(name):
                if name not in seen:
                    seen.add(name)
                    waiting.append(document.named[name])
            case Either(options):
                waiting = [*options, *waiting]
            case IfType(inner):
                waiting.insert(0, inner)
            case each:
                found[each] = None
    return list(found)


def _without_strings(shape: Shape) -> list[Shape]:
    match shape:
        case Text():
            return []
        case Values():
            others = [value for value in shape.values if not isinstance(value, str)]
            return [Values.of(others)] if others else []
        case _:
            return [shape]


def _is_bounded(shape: Shape) -> bool:
    """Whether a value of these types may be one that the shape does not allow."""
    return not isinstance(shape, Null | Boolean | Anything) and shape not in (Integer(), Number(), List(), Object())
