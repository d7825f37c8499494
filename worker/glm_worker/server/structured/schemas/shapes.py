"""What a JSON value may be: the form that schemas are read into, and grammars are written from.

A shape means exactly what its schema means, but for Text, whose patterns match a little less than they might.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from glm_worker.server.structured.patterns.nodes import Node


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No value at all."""


@dataclass(frozen=True, slots=True)
class Null:
    pass


@dataclass(frozen=True, slots=True)
class Boolean:
    pass


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number. low and high: included."""

    low: int | None = None
    high: int | None = None
    multiple_of: int = 1


@dataclass(frozen=True, slots=True)
class Number:
    """A number. low and high: the bounds; without_*: whether they are left out."""

    low: float | None = None
    high: float | None = None
    without_low: bool = False
    without_high: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A string. low and high: its length in characters. pattern: what it matches as a whole."""

    low: int = 0
    high: int | None = None
    pattern: Node | None = None


@dataclass(frozen=True, slots=True)
class Values:
    """One of these values. texts: each as JSON, for that tells 1 and true apart."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[Any]) -> "Values":
        return cls(tuple(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in values)))

    @property
    def values(self) -> list[Any]:
        return [json.loads(text) for text in self.texts]


@dataclass(frozen=True, slots=True)
class List:
    """first: what stands at the first places. rest: at all others; None: there are none."""

    first: "tuple[Shape, ...]" = ()
    rest: "Shape | None" = Anything()
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """others: what properties have that are not named here; None: there are none. names: what those are called."""

    properties: "tuple[tuple[str, Shape], ...]" = ()
    required: frozenset[str] = frozenset()
    others: "Shape | None" = Anything()
    names: "Shape | None" = None
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Either:
    options: "tuple[Shape, ...]"


@dataclass(frozen=True, slots=True)
class IfType:
    """Of the types that the shape is about: this. Of any other type: anything."""

    shape: "Text | Integer | Number | List | Object | Either"


@dataclass(frozen=True, slots=True)
class Named:
    """What has this name in its document."""

    name: str


Shape = Anything | Nothing | Null | Boolean | Integer | Number | Text | Values | List | Object | Either | IfType | Named
ANYTHING, NOTHING = Anything(), Nothing()


@dataclass(frozen=True)
class Document:
    """A whole schema."""

    root: Shape
    named: dict[str, Shape]


def either(options: list[Shape]) -> Shape:
    """Return a shape that allows what any of these does."""
    flat = [inner for option in options for inner in (option.options if isinstance(option, Either) else (option,))]
    kept = list(dict.fromkeys(option for option in flat if not isinstance(option, Nothing)))
    return NOTHING if not kept else kept[0] if len(kept) == 1 else Either(tuple(kept))


def kinds(shape: Shape) -> frozenset[str]:
    """Return the JSON types that a shape is about; whole numbers are numbers. Named: all."""
    match shape:
        case Null():
            return frozenset({"null"})
        case Boolean():
            return frozenset({"boolean"})
        case Integer() | Number():
            return frozenset({"number"})
        case Text():
            return frozenset({"string"})
        case List():
            return frozenset({"array"})
        case Object():
            return frozenset({"object"})
        case Values():
            return frozenset(map(kind_of, shape.values))
        case Either(options):
            return frozenset().union(*map(kinds, options))
        case Nothing():
            return frozenset()
        case _:
            return frozenset({"null", "boolean", "number", "string", "array", "object"})


def kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1."""
    if kind_of(one) != kind_of(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(each, other[name]) for name, each in one.items())
    return bool(one == other)


def with_required_named(shape: Object) -> Object:
    """Return the same object with every required property among the named ones."""
    known = dict(shape.properties)
    missing = [name for name in sorted(shape.required) if name not in known]
    others = NOTHING if shape.others is None else shape.others
    return replace(shape, properties=(*shape.properties, *((name, others) for name in missing)))
