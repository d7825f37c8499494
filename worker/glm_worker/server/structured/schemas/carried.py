"""What a call of the GLM format cannot carry: names with tags in them, values that spell their own end.

Inside a value, `</arg_value>`, white space and `<arg_key>` end it even if they are spelled in text (text/values.py).
Values that a schema spells out are refused for that. Strings of any text may still spell it: to take that out of them
makes a grammar that compiles for half a second on a vocabulary of 152k tokens.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce

from glm_worker.server.structured.patterns import characters
from glm_worker.server.structured.patterns.characters import Ranges
from glm_worker.server.structured.patterns.nodes import Chars, Choice, Node, Repeat, Sequence
from glm_worker.server.structured.refused import Invalid
from glm_worker.server.structured.schemas.shapes import Either, IfType, List, Named, Object, Shape, Text, Values
from glm_worker.server.text.call_names import BLANKS, KEY
from glm_worker.server.text.tool_calls import END_KEY, VALUE
from glm_worker.server.text.values import END_VALUE

_ENDS = re.compile(f"{END_VALUE}[{BLANKS}]*{KEY}")
_SPELLED = END_VALUE + KEY
_BETWEEN, _ENDED = len(END_VALUE), len(_SPELLED)  # how much of it was spelled
_MOST_NARROW = 64  # characters of a class that spells; a larger one is any text
_SHOWN = 80


def check_name(name: str) -> None:
    """Raise Invalid for the name of an argument that would be read as another one."""
    if name != name.strip() or any(tag in name for tag in (KEY, END_KEY, VALUE)):
        raise Invalid(
            f"an argument cannot be called {name[:_SHOWN]!r}: "
            "a call has no tags in the names of its arguments and no white space around them"
        )


def check_value(name: str, shape: Shape, named: Mapping[str, Shape]) -> None:
    """Raise Invalid for an argument whose schema spells out a value that a call cannot carry."""
    for each in _inside(shape, named):
        what = _spelled_by(each)
        if what is not None:
            raise Invalid(
                f"the argument {name[:_SHOWN]!r} cannot have {what}: "
                f"{END_VALUE} before {KEY} ends the value of an argument"
            )


def can_end(pattern: Node) -> bool:
    """Whether a text that matches may hold the end of a value, spelled by characters that the pattern names.

    A class of more than 64 characters is any text, which is not looked into.
    """
    return bool(_relation(pattern)[0] >> _ENDED & 1)


def _spelled_by(shape: Shape) -> str | None:
    match shape:
        case Values(texts):
            value = next((text for text in texts if _ENDS.search(_as_written(text))), None)
            return None if value is None else f"the value in its schema that is {_kind_of(json.loads(value))}"
        case Object(properties=properties):
            name = next((name for name, _ in properties if _ENDS.search(name)), None)
            return None if name is None else f"a property whose name has {len(name)} characters"
        case Text(pattern=pattern) if pattern is not None and can_end(pattern):
            return "this pattern"
        case _:
            return None


def _kind_of(value: object) -> str:
    """Return of what kind a value is, which tells nothing of its text."""
    match value:
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case _:
            return "an object"


def _as_written(text: str) -> str:
    """Return how a value stands in a call: a string as it is, anything else as JSON."""
    return str(json.loads(text)) if text.startswith('"') else text


def _inside(shape: Shape, named: Mapping[str, Shape]) -> Iterator[Shape]:
    """Yield a shape and all that it is made of, each once."""
    seen: set[int] = set()
    waiting: list[Shape | None] = [shape]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        match each:
            case Named(name):
                waiting.append(named[name])
            case Either(options):
                waiting += options
            case IfType(inner):
                waiting.append(inner)
            case List(first, rest):
                waiting += [*first, rest]
            case Object(properties=properties, others=others, names=names):
                waiting += [*(of for _, of in properties), others, names]


# How many characters of _SPELLED may be written after a text, by how many were before it: a row a number, a bit each.
_Relation = tuple[int, ...]
_SAME: _Relation = tuple(1 << at for at in range(_ENDED + 1))


def _relation(node: Node) -> _Relation:
    match node:
        case Chars(ranges):
            return _of_character(ranges)
        case Sequence(parts):
            return reduce(_then, map(_relation, parts), _SAME)
        case Choice(options):
            return reduce(_or, map(_relation, options))
        case Repeat(part, low, high):
            once = _relation(part)
            more = _ENDED + 1 if high is None else high - low  # later ones add nothing
            return _then(_times(once, low), _times(_or(once, _SAME), more))


@lru_cache(maxsize=4096)
def _of_character(ranges: Ranges) -> _Relation:
    is_narrow = sum(high - low + 1 for low, high in ranges) <= _MOST_NARROW
    rows = [0] * _ENDED + [1 << _ENDED]
    for at, char in enumerate(_SPELLED):
        if (is_narrow or at >= _BETWEEN) and characters.has(ranges, char):
            rows[at] = 1 << at + 1
    rows[0] |= 1  # it may begin later
    if characters.both(ranges, characters.of(BLANKS)):
        rows[_BETWEEN] |= 1 << _BETWEEN
    return tuple(rows)


def _then(one: _Relation, other: _Relation) -> _Relation:
    return tuple(_row(reached, other) if reached else 0 for reached in one)


def _row(reached: int, relation: _Relation) -> int:
    found = 0
    while reached:
        low = reached & -reached
        found |= relation[low.bit_length() - 1]
        reached ^= low
    return found


def _or(one: _Relation, other: _Relation) -> _Relation:
    return tuple(mine | others for mine, others in zip(one, other, strict=True))


def _times(relation: _Relation, number: int) -> _Relation:
    found = _SAME
    while number:
        if number & 1:
            found = _then(found, relation)
        relation = _then(relation, relation)
        number >>= 1
    return found
