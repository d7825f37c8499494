"""What a tool's JSON schema says of each of its arguments: which JSON types it may have.

Read once a request, when it comes in. A schema is a graph, for `$ref` may lead anywhere: every node is visited once,
and what nodes say of each other is repeated until nothing changes, so cycles and branches cost what they are long. A
schema that takes more than its budget of steps is refused, and so are schemas that together take more than theirs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any
from urllib.parse import unquote

import msgspec

ALL_NAMES: frozenset[str] = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
STRING: frozenset[str] = frozenset({"string"})
STEP_BUDGET = 40_000  # of one tool: about 5,000 subschemas, and about 80 ms
REQUEST_STEP_BUDGET = 5 * STEP_BUDGET  # of all tools of a request

_NUMBERS = frozenset({"number", "integer"})
_JSON_BEGINS = tuple('-0123456789tfnTFN"[{')


_WORDS_A_STEP = 32  # a set of so many takes a step to join
_VALUES_A_STEP = 4  # of an enum
_POINTER_A_STEP = 32  # characters of a reference


class SchemaTooLarge(Exception):
    """The parameters of a tool take more steps to read than a budget allows."""

    def __init__(self, budget: int) -> None:
        super().__init__(f"more than {budget} steps")
        self.budget = budget


class Steps:
    """A budget of steps, each about 2 microseconds. within: another one that they count for as well."""

    def __init__(self, budget: int = STEP_BUDGET, within: "Steps | None" = None) -> None:
        self._budget = self._left = budget
        self._within = within

    def spend(self, num_steps: int = 1) -> None:
        """Take steps before they are made. Raises SchemaTooLarge."""
        self._left -= num_steps
        if self._left < 0:
            raise SchemaTooLarge(self._budget)
        if self._within is not None:
            self._within.spend(num_steps)


@dataclass(frozen=True, slots=True)
class ArgumentType:
    """What one argument may be. The GLM format writes strings raw and everything else as JSON.

    words: strings that the schema lists one by one and that look like other JSON: in `[1, "2"]` the text 2 is a string.
    """

    names: frozenset[str]
    words: frozenset[str] = frozenset()

    def or_else(self, other: "ArgumentType") -> "ArgumentType":
        return ArgumentType(self.names | other.names, self.words | other.words)

    def and_also(self, other: "ArgumentType") -> "ArgumentType":
        names = self.names & other.names
        if not names & _NUMBERS and self.names & _NUMBERS and other.names & _NUMBERS:
            names |= {"integer"}  # which is a number
        return ArgumentType(names, self.words | other.words)


ANYTHING = ArgumentType(ALL_NAMES)
NOTHING = ArgumentType(frozenset())
TEXT = ArgumentType(STRING)


@dataclass(frozen=True)
class Parameters:
    """The types of a tool's arguments. others: of those that its schema does not name."""

    named: Mapping[str, ArgumentType] = field(default_factory=dict)
    others: ArgumentType = ANYTHING

    def __getitem__(self, name: str) -> ArgumentType:
        return self.named.get(name, self.others)


Tools = Mapping[str, Parameters]
"""The tools on offer, by name."""


def parameters_of(schema: Mapping[str, Any] | None, steps: Steps | None = None) -> Parameters:
    """Return the types that a tool's parameters allow. Where they say nothing, or nothing possible, anything goes.

    Raises SchemaTooLarge.
    """
    reading = _Reading(schema or {}, steps or Steps())
    declared = reading.declared()
    types = reading.types(declared.values())
    named = {name: types(node) for name, node in declared.items() if name is not None}
    return Parameters(named, types(declared[None]) if None in declared else ANYTHING)


class _Reading:
    """One schema being read. Nodes are known by identity: they live as long as this."""

    def __init__(self, root: Mapping[str, Any], steps: Steps) -> None:
        self._root = root
        self._spend = steps.spend
        self._made: list[dict[str, Any]] = []  # nodes of ours, kept alive for their identity
        self._targets: dict[str, object] = {}

    def declared(self) -> dict[str | None, object]:
        """Return the schema of every argument that the root names, itself or through what it is combined from.

        Under None: the schema of all others.
        """
        found: dict[int, dict[str | None, object]] = {}
        for node in self._with_parts_first([self._root]):
            said: dict[str | None, list[object]] = {}
            if isinstance(properties := node.get("properties"), Mapping):
                self._gather(said, properties)
            if isinstance(others := node.get("additionalProperties"), Mapping):
                self._gather(said, {None: others})
            for part in self._parts(node):
                self._gather(said, found.get(id(part), {}))
            for options in self._choices(node):
                any_of: dict[str | None, list[object]] = {}
                for option in options:
                    self._gather(any_of, found.get(id(option), {}))
                self._gather(said, {name: self._joined("anyOf", nodes) for name, nodes in any_of.items()})
            found[id(node)] = {name: self._joined("allOf", nodes) for name, nodes in said.items()}
        return found.get(id(self._root), {})

    def types(self, starts: Iterable[object]) -> Callable[[object], ArgumentType]:
        """Return what tells the type of each of these nodes: the least that agrees with all they say of each other."""
        order = self._with_parts_first(starts)
        types: dict[int, ArgumentType] = {id(node): NOTHING for node in order}

        def type_of(node: object) -> ArgumentType:
            return types.get(id(node), NOTHING if node is False else ANYTHING)

        def both(one: ArgumentType, other: ArgumentType) -> ArgumentType:
            self._spend(1 + (len(one.words) + len(other.words)) // _WORDS_A_STEP)
            return one.and_also(other)

        def either(one: ArgumentType, other: ArgumentType) -> ArgumentType:
            self._spend(1 + (len(one.words) + len(other.words)) // _WORDS_A_STEP)
            return one.or_else(other)

        said = {id(node): self._said(node) for node in order}
        has_changed = True
        while has_changed:
            has_changed = False
            self._spend(len(order))
            for node in order:
                new = reduce(both, map(type_of, self._parts(node)), said[id(node)])
                for options in self._choices(node):
                    new = both(new, reduce(either, map(type_of, options), NOTHING))
                has_changed = has_changed or new != types[id(node)]
                types[id(node)] = new
        return lambda node: found if (found := type_of(node)).names else ANYTHING

    def _said(self, node: Mapping[str, Any]) -> ArgumentType:
        for key in ("type", "enum"):
            if isinstance(values := node.get(key), list):
                self._spend(len(values) // _VALUES_A_STEP)
        return _said(node)

    def _with_parts_first(self, starts: Iterable[object]) -> list[Mapping[str, Any]]:
        """Return every node that these are combined from, each once, after its parts where there is no cycle."""
        order: list[Mapping[str, Any]] = []
        seen: set[int] = set()
        stack: list[tuple[Mapping[str, Any], Iterator[object]]] = []

        def enter(node: object) -> None:
            self._spend()
            if isinstance(node, Mapping) and id(node) not in seen:
                seen.add(id(node))
                stack.append((node, self._below(node)))

        for start in starts:
            enter(start)
            while stack:
                node, below = stack[-1]
                try:
                    enter(next(below))
                except StopIteration:
                    order.append(node)
                    stack.pop()
        return order

    def _below(self, node: Mapping[str, Any]) -> Iterator[object]:
        yield from self._parts(node)
        for options in self._choices(node):
            yield from options

    def _parts(self, node: Mapping[str, Any]) -> list[object]:
        """Return the schemas that must hold together with this one."""
        parts = list(node["allOf"]) if isinstance(node.get("allOf"), list) else []
        if isinstance(reference := node.get("$ref"), str):
            parts.append(self._target(reference))
        return parts

    def _choices(self, node: Mapping[str, Any]) -> list[list[object]]:
        """Return the lists of schemas of each of which one must hold."""
        return [options for key in ("anyOf", "oneOf") if isinstance(options := node.get(key), list) and options]

    def _target(self, reference: str) -> object:
        """Return where a reference inside the document leads; True, which allows anything, when it leads nowhere."""
        if reference not in self._targets:
            self._targets[reference] = self._followed(reference)
        return self._targets[reference]

    def _followed(self, reference: str) -> object:
        self._spend(len(reference) // _POINTER_A_STEP)
        pointer = unquote(reference.removeprefix("#"))
        if not reference.startswith("#") or (pointer and not pointer.startswith("/")):
            return True
        node: object = self._root
        for part in pointer.split("/")[1:]:
            self._spend()
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key[:9]) < len(node):
                node = node[int(key[:9])]
            else:
                return True
        return node

    def _gather(self, into: dict[str | None, list[object]], declared: Mapping[Any, object]) -> None:
        self._spend(len(declared))
        for name, node in declared.items():
            into.setdefault(name, []).append(node)

    def _joined(self, how: str, nodes: list[object]) -> object:
        if len(nodes) == 1:
            return nodes[0]
        self._made.append({how: nodes})
        return self._made[-1]


def _said(node: Mapping[str, Any]) -> ArgumentType:
    """Return what a node says by itself. A type that JSON schema does not know says nothing."""
    said = ANYTHING
    declared = node.get("type")
    names = ALL_NAMES & ({str(each) for each in declared} if isinstance(declared, list) else {str(declared)})
    if names:
        said = ArgumentType(names | {"null"} if node.get("nullable") is True else names)
    if isinstance(values := node.get("enum"), list) and values:
        said = said.and_also(_one_of(values))
    if "const" in node:
        said = said.and_also(_one_of([node["const"]]))
    return said


def _one_of(values: list[object]) -> ArgumentType:
    names = frozenset(name for value in values for name in json_types(value))
    words = {value for value in values if isinstance(value, str) and value.startswith(_JSON_BEGINS)}
    if words and names != STRING:
        words -= {msgspec.json.encode(value).decode() for value in values if not isinstance(value, str)}
    return ArgumentType(names, frozenset(words))


def json_types(value: object) -> frozenset[str]:
    """Return the names of the JSON types that a decoded value has: two for whole numbers."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number", "integer"} if value.is_integer() else {"number"})
        case str():
            return STRING
        case list():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})
