"""From a JSON schema to its shape: one step a keyword, within a budget, refused by name where a grammar cannot keep it.

Reads draft 2020-12, and of the older ones what means the same. A keyword that is not known is refused too: a slip of
the pen would else be no condition at all.
"""

import re
from collections.abc import Callable, Mapping
from math import floor, isfinite
from typing import Any
from urllib.parse import unquote

from glm_worker.server.structured.patterns.ebnf import is_writable
from glm_worker.server.structured.patterns.expressions import pattern_of
from glm_worker.server.structured.patterns.nodes import Node
from glm_worker.server.structured.refused import Invalid, TooLarge
from glm_worker.server.structured.schemas import keywords
from glm_worker.server.structured.schemas.reasoning import Reasoning
from glm_worker.server.structured.schemas.shapes import (
    ANYTHING,
    NOTHING,
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
    with_required_named,
)

MAX_NODES = 4_000  # schemas, properties and values of enums, of one schema
MAX_TEXT = 128 * 2**10  # characters of names and values together
MAX_DEPTH = 32
MAX_VALUES = 1_000  # of one enum
MAX_ITEMS = 1_000  # that a list must or may have, where that is bounded
MAX_LENGTH = 10_000  # of a string, where that is bounded
MAX_STEPS = 20_000  # to combine what holds together
_MOST_INTEGER = 10**18
_WORD = re.compile(r"[\w.:/+#$~%-]{1,64}", re.ASCII)  # what may be told of a text: no sentence


def read_schema(schema: object) -> Document:
    """Return what a schema allows. Raises Invalid and TooLarge."""
    measure(schema)
    reading = _Reading(schema)
    root = reading.read(schema, 0)
    reading.read_targets()
    for name in reading.named:
        _check_goes_on(name, reading.named)
    return Document(root, reading.named)


def _check_goes_on(name: str, named: Mapping[str, Shape]) -> None:
    """Raise Invalid where a name stands for itself, through alternatives or not: no validator ends at that."""
    seen: set[str] = set()
    waiting: list[Shape] = [named[name]]
    while waiting:
        match waiting.pop():
            case Named(other):
                if other == name:
                    raise Invalid("a $ref leads back to itself with nothing in between")
                if other not in seen:
                    seen.add(other)
                    waiting.append(named[other])
            case Either(options):
                waiting.extend(options)
            case IfType(inner):
                waiting.append(inner)
            case _:
                continue


def measure(schema: object) -> None:
    """Raise TooLarge for a schema with too much in it, of whatever kind, before anything is made of it."""
    num_nodes = num_characters = 0
    waiting: list[tuple[object, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        num_nodes += 1
        if depth > 2 * MAX_DEPTH:
            raise TooLarge(f"the schema is nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, str):
            num_characters += len(node)
        elif isinstance(node, list):
            waiting.extend((each, depth + 1) for each in node)
        elif isinstance(node, Mapping):
            num_characters += sum(map(len, node))
            waiting.extend((each, depth + 1) for each in node.values())
        if num_nodes + len(waiting) > 8 * MAX_NODES:
            raise TooLarge(f"the schema has more than {8 * MAX_NODES} values in it")
        if num_characters > 2 * MAX_TEXT:
            raise TooLarge(f"the schema has more than {2 * MAX_TEXT} characters in it")


class _Reading:
    """One schema being read. Targets of references are read once each, when all that leads to them has been."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._num_nodes = self._num_steps = 0
        self._depth = 0  # of reads inside one another, through references too
        self._names: dict[str, str] = {}  # of targets, by reference
        self._targets: dict[str, object] = {}  # not read yet
        self.named: dict[str, Shape] = {}
        self._reasoning = Reasoning(self._resolved, self._step)

    def read_targets(self) -> None:
        while self._targets:
            self._read_target(next(iter(self._targets)))

    def read(self, node: object, depth: int) -> Shape:
        """Return what one schema allows."""
        self._count(1)
        self._depth += 1
        if depth > MAX_DEPTH or self._depth > 2 * MAX_DEPTH:
            raise TooLarge(f"the schema is nested more than {MAX_DEPTH} levels deep")
        found = self._read(node, depth)
        self._depth -= 1
        return found

    def _read(self, node: object, depth: int) -> Shape:
        if node is True:
            return ANYTHING
        if node is False:
            return NOTHING
        if not isinstance(node, Mapping):
            raise Invalid("a schema must be an object, true or false")
        for keyword in node:
            self._check_keyword(node, keyword, depth)
        found = self._own(node, depth)
        if "$ref" in node:
            found = self._reasoning.both(found, self._reference(node["$ref"]))
        for part in _schemas(node, "allOf"):
            found = self._reasoning.both(found, self.read(part, depth + 1))
        if "anyOf" in node:
            options = [self.read(option, depth + 1) for option in _schemas(node, "anyOf")]
            found = self._reasoning.both(found, either(options))
        if "oneOf" in node:
            found = self._reasoning.both(found, self._one_of(node, depth))
        return with_required_named(found) if isinstance(found, Object) else found

    def _one_of(self, node: Mapping[str, Any], depth: int) -> Shape:
        options = [self.read(option, depth + 1) for option in _schemas(node, "oneOf")]
        for at, option in enumerate(options):
            if not all(self._reasoning.are_disjoint(option, other) for other in options[:at]):
                raise Invalid(
                    "oneOf has options that may hold both; use anyOf, or give each a required property with a const"
                )
        return either(options)

    def _check_keyword(self, node: Mapping[str, Any], keyword: object, depth: int) -> None:
        if keyword in keywords.REFUSED:
            raise Invalid(f"{keyword} is not supported")
        if keyword == "$id" and (depth == 0 or isinstance(node["$id"], str)):
            if depth:
                raise Invalid("$id below the root is not supported")
            return
        if keyword not in keywords.KEPT and keyword not in keywords.SAY_NOTHING and not str(keyword).startswith("x-"):
            raise Invalid(f"the keyword {_shown(keyword)} is not known")

    def _own(self, node: Mapping[str, Any], depth: int) -> Shape:
        """Return what the node's own keywords say, without those that combine others."""
        types = node.get("type")
        of_types: dict[str, Callable[[], Shape]] = {
            "string": lambda: self._text(node),
            "number": lambda: self._number(node),
            "integer": lambda: self._reasoning.both(Integer(), self._number(node)),
            "array": lambda: self._list(node, depth),
            "object": lambda: self._object(node, depth),
            "boolean": Boolean,
            "null": Null,
        }
        found: Shape = ANYTHING
        if types is not None:
            names = [types] if isinstance(types, str) else types
            if not isinstance(names, list) or not names:
                raise Invalid("type must be a name or a list of names")
            for name in names:
                if not isinstance(name, str) or name not in of_types:
                    raise Invalid(f"type is {_shown(name)}; allowed: {', '.join(sorted(of_types))}")
            found = either(
                [of_types[name]() for name in dict.fromkeys(names) if name != "integer" or "number" not in names]
            )
        else:
            about = [of_types[name]() for name, words in keywords.OF_TYPE.items() if words & node.keys()]
            if about:
                found = IfType(about[0] if len(about) == 1 else either(about))  # type: ignore[arg-type]
        if "enum" in node:
            found = self._reasoning.both(found, self._values(node["enum"]))
        if "const" in node:
            found = self._reasoning.both(found, self._values([node["const"]]))
        return found

    def _values(self, values: object) -> Shape:
        if not isinstance(values, list) or not values:
            raise Invalid("enum must be a list with something in it")
        if len(values) > MAX_VALUES:
            raise TooLarge(f"an enum has {len(values)} values; at most {MAX_VALUES} are allowed")
        self._count(len(values))
        return Values.of(values)

    def _text(self, node: Mapping[str, Any]) -> Shape:
        low, high = self._bounds(node, "minLength", "maxLength", MAX_LENGTH)
        patterns: list[Node] = []
        if "pattern" in node:
            patterns.append(_pattern(node["pattern"]))
        name = node.get("format")
        if name is not None and name not in sorted(keywords.NUMBER_FORMATS):
            if not isinstance(name, str) or name not in keywords.FORMATS:
                allowed = ", ".join(sorted(keywords.FORMATS))
                raise Invalid(f"format is {_shown(name)}; supported: {allowed}")
            patterns.append(pattern_of(keywords.FORMATS[name], is_searched=False))
        if len(patterns) > 1:
            raise Invalid("a string with pattern and format is not supported; leave one of them out")
        return NOTHING if high is not None and low > high else Text(low, high, patterns[0] if patterns else None)

    def _number(self, node: Mapping[str, Any]) -> Shape:
        found: Shape = Number()
        for keyword in keywords.OF_TYPE["number"] & node.keys():
            value = node[keyword]
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise Invalid(f"{keyword} must be a number")
            bound: Shape
            match keyword:
                case "minimum":
                    bound = Number(low=value)
                case "maximum":
                    bound = Number(high=value)
                case "exclusiveMinimum":
                    bound = Number(low=value, without_low=True)
                case "exclusiveMaximum":
                    bound = Number(high=value, without_high=True)
                case _:
                    if value <= 0 or value != floor(value) or value > _MOST_INTEGER:
                        raise Invalid(f"multipleOf is {_shown(value)}; supported are whole numbers from 1")
                    bound = Integer(multiple_of=int(value))
            found = self._reasoning.both(found, bound)
        return found

    def _list(self, node: Mapping[str, Any], depth: int) -> Shape:
        if node.get("uniqueItems") not in (None, False):
            raise Invalid("uniqueItems is not supported")
        if isinstance(node.get("items"), list):
            raise Invalid("items is a list; use prefixItems")
        if "unevaluatedItems" in node:
            raise Invalid("unevaluatedItems is not supported; use items")
        low, high = self._bounds(node, "minItems", "maxItems", MAX_ITEMS)
        first = tuple(self.read(each, depth + 1) for each in _schemas(node, "prefixItems", may_be_empty=True))
        rest = self.read(node["items"], depth + 1) if "items" in node else ANYTHING
        found = List(first, None if rest == NOTHING else rest, low, high)
        return NOTHING if high is not None and low > high else found

    def _object(self, node: Mapping[str, Any], depth: int) -> Shape:
        properties, required = node.get("properties", {}), node.get("required", [])
        if not isinstance(properties, Mapping):
            raise Invalid("properties must be an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise Invalid("required must be a list of names")
        low, high = self._bounds(node, "minProperties", "maxProperties", MAX_ITEMS)
        others: Shape | None = ANYTHING
        for keyword in ("unevaluatedProperties", "additionalProperties"):
            if keyword in node:
                others = self.read(node[keyword], depth + 1)
        if node.get("unevaluatedProperties") not in (None, False, True):
            raise Invalid("unevaluatedProperties with a schema is not supported; use additionalProperties")
        names, others = self._names_of(node, others, depth)
        self._count(len(required))
        return Object(
            tuple((name, self.read(each, depth + 1)) for name, each in properties.items()),
            frozenset(required),
            None if others == NOTHING else others,
            names,
            low,
            high,
        )

    def _names_of(self, node: Mapping[str, Any], others: Shape | None, depth: int) -> tuple[Shape | None, Shape | None]:
        """Return what properties may be called, and what they hold, where only their names' form is given."""
        patterns = node.get("patternProperties", {})
        if not isinstance(patterns, Mapping):
            raise Invalid("patternProperties must be an object")
        if not patterns and "propertyNames" not in node:
            return None, others
        if node.get("properties") or node.get("required") or len(patterns) + ("propertyNames" in node) > 1:
            raise Invalid(
                "patternProperties and propertyNames are supported with one pattern, without properties and required"
            )
        for pattern, each in patterns.items():
            return Text(pattern=_pattern(pattern)), self.read(each, depth + 1)
        return self._reasoning.both(Text(), self.read(node["propertyNames"], depth + 1)), others

    def _bounds(self, node: Mapping[str, Any], low: str, high: str, most: int) -> tuple[int, int | None]:
        for keyword in (low, high):
            value = node.get(keyword, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or value != floor(value) or value < 0:
                raise Invalid(f"{keyword} must be a whole number from 0")
        if node.get(low, 0) > most:
            raise TooLarge(f"{low} is {_shown(node[low])}; at most {most} is allowed")
        bound = node.get(high)
        return int(node.get(low, 0)), None if bound is None else min(int(bound), most)

    def _reference(self, reference: object) -> Shape:
        if not isinstance(reference, str):
            raise Invalid("$ref must be a text")
        if reference not in self._names:
            name = f"r{len(self._names)}"
            self._targets[name] = self._followed(reference)
            self._names[reference] = name
        return Named(self._names[reference])

    def _followed(self, reference: str) -> object:
        pointer = unquote(reference.removeprefix("#"))
        if not reference.startswith("#") or (pointer and not pointer.startswith("/")):
            raise Invalid(
                f"$ref is {_shown(reference)}; supported are references into the schema, such as #/$defs/name"
            )
        node: object = self._root
        for part in pointer.split("/")[1:]:
            self._step()
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and key.isascii() and int(key[:9]) < len(node):
                node = node[int(key[:9])]
            else:
                raise Invalid(f"$ref is {_shown(reference)}, which leads nowhere")
        return node

    def _resolved(self, name: str) -> Shape | None:
        """Return what a name stands for, read now if it was not; None while it is being read."""
        if name in self._targets:
            self._read_target(name)
        found = self.named.get(name)
        for _ in range(len(self.named)):
            if not isinstance(found, Named):
                break
            found = self._resolved(found.name)
        return None if isinstance(found, Named) else found

    def _read_target(self, name: str) -> None:
        self.named[name] = self.read(self._targets.pop(name), 0)

    def _count(self, num_nodes: int) -> None:
        self._num_nodes += num_nodes
        if self._num_nodes > MAX_NODES:
            raise TooLarge(f"the schema has more than {MAX_NODES} parts (schemas, properties, values of enums)")

    def _step(self) -> None:
        self._num_steps += 1
        if self._num_steps > MAX_STEPS:
            raise TooLarge(f"the schema takes more than {MAX_STEPS} steps to combine what it says")


def _pattern(source: object) -> Node:
    if not isinstance(source, str):
        raise Invalid("a pattern must be a text")
    found = pattern_of(source, is_searched=True)
    if not is_writable(found):
        raise Invalid("a pattern asks for control characters, which JSON cannot hold as they are")
    return found


def _schemas(node: Mapping[str, Any], keyword: str, *, may_be_empty: bool = False) -> list[Any]:
    found = node.get(keyword, [])
    if not isinstance(found, list) or (keyword in node and not found and not may_be_empty):
        raise Invalid(f"{keyword} must be a list of schemas with something in it")
    return found


def _shown(value: object) -> str:
    """Return a value as a sentence can say it: words and numbers, of all else only what it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return repr(value) if _WORD.fullmatch(value) else f"a text of {len(value)} characters"
    text = str(value)
    return text if len(text) <= 60 else f"a number of {len(text)} characters"
