"""What follows from shapes together: what both allow, whether they have a value in common, and whether one holds it."""

import math
from collections.abc import Callable
from typing import Any

from glm_worker.server.structured.refused import Invalid, TooLarge
from glm_worker.server.structured.schemas.shapes import (
    NOTHING,
    Anything,
    Either,
    IfType,
    Integer,
    List,
    Named,
    Nothing,
    Number,
    Object,
    Shape,
    Text,
    Values,
    either,
    is_same,
    kind_of,
    kinds,
)

_MAX_DEPTH = 64
_MAX_PROOF = 16  # steps inside one another to show that two shapes have nothing in common


class Reasoning:
    """What follows from shapes together. resolve: what a name stands for, None where that is not known yet.

    spend: is told of each step, and may raise.
    """

    def __init__(self, resolve: Callable[[str], Shape | None], spend: Callable[[], None]) -> None:
        self._resolve = resolve
        self._spend = spend
        self._depth = 0

    def both(self, one: Shape, other: Shape) -> Shape:
        """Return what is allowed by both."""
        self._spend()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TooLarge("the schema combines things nested too deeply, or without end")
        found = self._both(one, other)
        self._depth -= 1
        return found

    def _both(self, one: Shape, other: Shape) -> Shape:
        match one, other:
            case _ if one == other:
                return one
            case (Anything(), each) | (each, Anything()):
                return each
            case (Nothing(), _) | (_, Nothing()):
                return NOTHING
            case (Named(name), each) | (each, Named(name)):
                return self.both(self._known(name), each)
            case (Either(options), each) | (each, Either(options)):
                return either([self.both(option, each) for option in options])
            case (Values() as values, each) | (each, Values() as values):
                return self._those_that_hold(values, each)
            case IfType(a), IfType(b):
                return IfType(self._narrowest(a, b))
            case (IfType(shape), each) | (each, IfType(shape)):
                return self.both(shape, each) if kinds(shape) & kinds(each) else each
            case _:
                return self._both_of_a_kind(one, other)

    def _both_of_a_kind(self, one: Shape, other: Shape) -> Shape:
        match one, other:
            case Integer(), Integer():
                multiple = math.lcm(one.multiple_of, other.multiple_of)
                return _integer(_most(one.low, other.low), _least(one.high, other.high), multiple)
            case (Integer() as whole, Number() as number) | (Number() as number, Integer() as whole):
                return _whole_between(whole, number)
            case Number(), Number():
                return _both_numbers(one, other)
            case Text(), Text():
                if one.pattern is not None and other.pattern is not None:
                    raise Invalid("a string with two patterns (pattern, format) is not supported")
                high = _least(one.high, other.high)
                return Text(max(one.low, other.low), high, one.pattern or other.pattern)
            case List(), List():
                return self._both_lists(one, other)
            case Object(), Object():
                return self._both_objects(one, other)
            case _:
                return NOTHING

    def are_disjoint(self, one: Shape, other: Shape, depth: int = 0) -> bool:
        """Whether it is certain that no value is allowed by both."""
        self._spend()
        if depth > _MAX_PROOF:
            return False
        match one, other:
            case (Nothing(), _) | (_, Nothing()):
                return True
            case (Named(name), each) | (each, Named(name)):
                known = self._resolve(name)
                return known is not None and self.are_disjoint(known, each, depth + 1)
            case (Either(options), each) | (each, Either(options)):
                return all(self.are_disjoint(option, each, depth + 1) for option in options)
            case (Anything() | IfType(), _) | (_, Anything() | IfType()):
                return False
            case (Values() as values, each) | (each, Values() as values):
                return all(self.holds(each, value) is False for value in values.values)
            case Object(), Object():
                return self._are_disjoint_objects(one, other, depth)
            case _:
                return not kinds(one) & kinds(other)

    def holds(self, shape: Shape, value: Any) -> bool | None:
        """Whether a shape allows a value; None when that is not certain."""
        self._spend()
        match shape:
            case Anything():
                return True
            case Nothing():
                return False
            case Named(name):
                known = self._resolve(name)
                return None if known is None else self.holds(known, value)
            case Either(options):
                found = [self.holds(option, value) for option in options]
                return True if True in found else None if None in found else False
            case IfType(inner):
                return self.holds(inner, value) if kind_of(value) in kinds(inner) else True
            case Values():
                return any(is_same(value, each) for each in shape.values)
            case _:
                return self._holds_of_its_kind(shape, value) if kind_of(value) in kinds(shape) else False

    def _holds_of_its_kind(self, shape: Shape, value: Any) -> bool | None:
        match shape:
            case Integer(low, high, multiple_of):
                is_whole = isinstance(value, int) or float(value).is_integer()
                return is_whole and _is_between(value, low, high) and int(value) % multiple_of == 0
            case Number(low, high, without_low, without_high):
                is_at_bound = (without_low and value == low) or (without_high and value == high)
                return _is_between(value, low, high) and not is_at_bound
            case Text(low, high, pattern):
                return False if not _is_between(len(value), low, high) else None if pattern else True
            case List():
                return self._list_holds(shape, value)
            case Object():
                return self._object_holds(shape, value)
            case _:
                return True

    def _known(self, name: str) -> Shape:
        known = self._resolve(name)
        if known is None:
            raise Invalid("a $ref with other keywords beside it leads back to itself; that is not supported")
        return known

    def _narrowest(self, one: Any, other: Any) -> Any:
        """Return what two conditions on types say together."""
        if kinds(one) == kinds(other):
            found = self.both(one, other)
            if not isinstance(found, Nothing):
                return found
        elif not kinds(one) & kinds(other):
            return Either((one, other))
        raise Invalid("keywords that stand without a type are combined in a way that is not supported; give the types")

    def _those_that_hold(self, values: Values, shape: Shape) -> Shape:
        found = [(value, self.holds(shape, value)) for value in values.values]
        if any(is_held is None for _, is_held in found):
            raise Invalid("enum or const beside a pattern or format is not supported; leave one of them out")
        kept = [value for value, is_held in found if is_held]
        return Values.of(kept) if kept else NOTHING

    def _both_lists(self, one: List, other: List) -> Shape:
        length = max(len(one.first), len(other.first))
        first: list[Shape] = []
        high = _least(one.high, other.high)
        for at in range(length):
            pair = [each.first[at] if at < len(each.first) else each.rest for each in (one, other)]
            if pair[0] is None or pair[1] is None:
                high = _least(high, at)
                break
            first.append(self.both(pair[0], pair[1]))
        rest = None if one.rest is None or other.rest is None else self.both(one.rest, other.rest)
        return List(tuple(first), rest, max(one.low, other.low), high)

    def _both_objects(self, one: Object, other: Object) -> Shape:
        if (one.names and (other.properties or other.names)) or (other.names and one.properties):
            raise Invalid("patternProperties or propertyNames beside properties is not supported")
        found: dict[str, Shape] = {}
        named = [dict(each.properties) for each in (one, other)]
        for name in {**named[0], **named[1]}:
            shapes = [of.get(name, each.others) for of, each in zip(named, (one, other), strict=True)]
            found[name] = NOTHING if None in shapes else self.both(shapes[0] or NOTHING, shapes[1] or NOTHING)
        others = None if one.others is None or other.others is None else self.both(one.others, other.others)
        return Object(
            tuple(found.items()),
            one.required | other.required,
            others,
            one.names or other.names,
            max(one.low, other.low),
            _least(one.high, other.high),
        )

    def _are_disjoint_objects(self, one: Object, other: Object, depth: int) -> bool:
        named = [dict(each.properties) for each in (one, other)]
        for name in one.required | other.required:
            shapes = [of.get(name, each.others) for of, each in zip(named, (one, other), strict=True)]
            if shapes[0] is None or shapes[1] is None:
                return True
            if self.are_disjoint(shapes[0], shapes[1], depth + 1):
                return True
        return False

    def _list_holds(self, shape: List, value: list[Any]) -> bool | None:
        if not _is_between(len(value), shape.low, shape.high):
            return False
        places = (
            NOTHING if (at_place := shape.first[at] if at < len(shape.first) else shape.rest) is None else at_place
            for at in range(len(value))
        )
        return _all(self.holds(place, each) for place, each in zip(places, value, strict=True))

    def _object_holds(self, shape: Object, value: dict[str, Any]) -> bool | None:
        if not _is_between(len(value), shape.low, shape.high) or not shape.required <= value.keys():
            return False
        if shape.names is not None:
            return None
        properties = dict(shape.properties)
        return _all(self.holds(properties.get(name, shape.others or NOTHING), each) for name, each in value.items())


def _integer(low: int | None, high: int | None, multiple_of: int) -> Shape:
    if low is not None and high is not None and -(-low // multiple_of) * multiple_of > high:
        return NOTHING
    return Integer(low, high, multiple_of)


def _whole_between(whole: Integer, number: Number) -> Shape:
    low = None if number.low is None else math.ceil(number.low)
    high = None if number.high is None else math.floor(number.high)
    if low is not None and number.without_low and low == number.low:
        low += 1
    if high is not None and number.without_high and high == number.high:
        high -= 1
    return _integer(_most(whole.low, low), _least(whole.high, high), whole.multiple_of)


def _both_numbers(one: Number, other: Number) -> Shape:
    low, high = _most(one.low, other.low), _least(one.high, other.high)
    without_low = any(each.without_low and each.low == low for each in (one, other))
    without_high = any(each.without_high and each.high == high for each in (one, other))
    if low is not None and high is not None and (low > high or (low == high and (without_low or without_high))):
        return NOTHING
    return Number(low, high, without_low, without_high)


def _is_between(number: float, low: float | None, high: float | None) -> bool:
    return (low is None or low <= number) and (high is None or number <= high)


def _least(one: Any, other: Any) -> Any:
    return min((each for each in (one, other) if each is not None), default=None)


def _most(one: Any, other: Any) -> Any:
    return max((each for each in (one, other) if each is not None), default=None)


def _all(found: Any) -> bool | None:
    is_certain: bool | None = True
    for each in found:
        if each is False:
            return False
        is_certain = is_certain and each
    return is_certain
