"""The types of arguments: what the schema says, also through references, and at a price that is bounded."""

from typing import Any

import pytest

from glm_worker.server.text.argument_types import ALL_NAMES, ANYTHING, SchemaTooLarge, Steps, parameters_of
from unit import cpu_time

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "maybe": {"type": ["string", "null"]},
        "optional": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "nullable": {"type": "string", "nullable": True},
        "unit": {"enum": ["c", "f"]},
        "level": {"enum": [1, "max"]},
        "mixed": {"enum": [1, "2", True, None]},
        "fixed": {"const": 3},
        "either": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "one": {"oneOf": [{"type": "array"}, {"$ref": "#/$defs/Place"}]},
        "place": {"$ref": "#/$defs/Place"},
        "beside": {"$ref": "#/$defs/Text", "enum": ["a", None]},
        "escaped": {"$ref": "#/$defs/a~1b%20~0c"},
        "by_index": {"$ref": "#/$defs/List/anyOf/1"},
        "both": {"allOf": [{"type": ["string", "null"]}, {"type": ["string", "integer"]}]},
        "whole": {"allOf": [{"type": "number"}, {"type": "integer"}]},
        "loop": {"$ref": "#/$defs/Loop"},
        "loop_with_a_way_out": {"$ref": "#/$defs/Tree"},
        "each_other": {"$ref": "#/$defs/A"},
        "nowhere": {"$ref": "#/$defs/Missing"},
        "far": {"$ref": "https://example.org/schema"},
        "named": {"$ref": "#anchor"},
        "impossible": {"allOf": [{"type": "string"}, {"type": "integer"}]},
        "unknown_type": {"type": "str"},
        "free": {},
        "anything": True,
        "nothing": False,
    },
    "$defs": {
        "Place": {"type": "object"},
        "Text": {"type": ["string", "null"]},
        "a/b ~c": {"type": "boolean"},
        "List": {"anyOf": [{"type": "string"}, {"type": "array"}]},
        "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}]},
        "Tree": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Tree"}]},
        "A": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "string"}]},
        "B": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("text", {"string"}),
        ("count", {"integer"}),
        ("maybe", {"string", "null"}),
        ("optional", {"string", "null"}),
        ("nullable", {"string", "null"}),
        ("unit", {"string"}),
        ("level", {"string", "integer", "number"}),
        ("mixed", {"string", "integer", "number", "boolean", "null"}),
        ("fixed", {"integer", "number"}),
        ("either", {"string", "number"}),
        ("one", {"array", "object"}),
        ("place", {"object"}),
        ("beside", {"string", "null"}),
        ("escaped", {"boolean"}),
        ("by_index", {"array"}),
        ("both", {"string"}),
        ("whole", {"integer"}),
        ("loop", ALL_NAMES),
        ("loop_with_a_way_out", {"integer"}),
        ("each_other", {"string", "null"}),
        ("nowhere", ALL_NAMES),
        ("far", ALL_NAMES),
        ("named", ALL_NAMES),
        ("impossible", ALL_NAMES),
        ("unknown_type", ALL_NAMES),
        ("free", ALL_NAMES),
        ("anything", ALL_NAMES),
        ("nothing", ALL_NAMES),
        ("undeclared", ALL_NAMES),
    ],
)
def test_types_come_from_the_schema(name: str, types: set[str]) -> None:
    assert parameters_of(SCHEMA)[name].names == types


def test_both_sides_of_a_cycle_know_what_the_other_allows() -> None:
    sides = {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/B"}}
    for names in (["a", "b"], ["b", "a"]):
        found = parameters_of({**SCHEMA, "properties": {name: sides[name] for name in names}})
        assert found["a"].names == found["b"].names == {"string", "null"}


def test_only_listed_strings_that_look_like_other_values_are_words() -> None:
    assert parameters_of(SCHEMA)["mixed"].words == {"2"}
    listed = {"properties": {"a": {"enum": [1, "1", "2", "null", None, "max", "-"]}}}
    assert parameters_of(listed)["a"].words == {"2", "-"}


@pytest.mark.parametrize("schema", [None, {}, {"properties": "nonsense"}, {"properties": {"x": 5}}, {"anyOf": 5}])
def test_without_a_schema_anything_is_allowed(schema: Any) -> None:
    assert parameters_of(schema)["x"] == ANYTHING


ROOTS: dict[str, dict[str, Any]] = {
    "one of several": {"oneOf": [{"properties": {"x": {"type": "integer"}}}, {"properties": {"y": {}}}]},
    "any of them": {"anyOf": [{"properties": {"x": {"type": "integer"}}}, {"type": "object"}]},
    "all of them": {
        "allOf": [{"properties": {"x": {"type": ["integer", "null"]}}}, {"properties": {"x": {"type": "integer"}}}]
    },
    "the root's own and a part": {
        "properties": {"x": {"type": ["integer", "string"]}},
        "allOf": [{"properties": {"x": {"type": ["integer", "null"]}}}],
    },
    "a reference": {"$ref": "#/$defs/R", "$defs": {"R": {"properties": {"x": {"type": "integer"}}}}},
    "a reference to a reference": {
        "allOf": [{"$ref": "#/$defs/Q"}],
        "$defs": {"Q": {"$ref": "#/$defs/R"}, "R": {"properties": {"x": {"type": "integer"}}}},
    },
    "a reference to itself": {"$ref": "#", "properties": {"x": {"type": "integer"}}},
    "others": {"properties": {"y": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
}


@pytest.mark.parametrize("case", ROOTS)
def test_arguments_are_found_through_what_the_root_is_combined_from(case: str) -> None:
    assert parameters_of(ROOTS[case])["x"].names == {"integer"}


def test_alternatives_of_the_root_allow_what_any_of_them_allows() -> None:
    options = [{"properties": {"x": {"type": name}}} for name in ("integer", "string")]
    assert parameters_of({"anyOf": options})["x"].names == {"integer", "string"}


BRANCHING: dict[str, dict[str, Any]] = {
    "one node that is its own alternatives": {
        "properties": {"x": {"$ref": "#/x"}},
        "x": {"anyOf": [{"$ref": "#/x"}, {"$ref": "#/x"}, {"$ref": "#/x"}]},
    },
    "a ladder with two ways up at each step": {
        "properties": {"x": {"$ref": "#/$defs/0"}},
        "$defs": {str(n): {"oneOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)},
    },
    "the same, of roots": {
        "$ref": "#/$defs/0",
        "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)},
    },
    "a ladder of different nodes": {
        "properties": {"x": {"$ref": "#/$defs/0"}},
        "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]} for n in range(60)},
    },
}


@pytest.mark.parametrize("case", BRANCHING)
def test_branching_references_cost_what_they_are_long(case: str) -> None:
    """They took 2^32 steps, 31 seconds and more for 278 bytes. Counted in steps: a clock would measure the machine."""
    parameters_of(BRANCHING[case], Steps(2000))


def test_a_schema_that_takes_more_than_its_budget_is_refused_at_once() -> None:
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(100_000)}
    with cpu_time.at_most(1), pytest.raises(SchemaTooLarge):
        parameters_of({"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": chain})


LONG: dict[str, dict[str, Any]] = {
    "alternatives that are no objects": {"properties": {"x": {"anyOf": [True] * 50_000}}},
    "parts that are no objects": {"properties": {"x": {"allOf": [True] * 50_000}}},
    "many references to many words": {
        "properties": {"x": {"anyOf": [{"$ref": "#/$defs/words"} for _ in range(500)]}},
        "$defs": {"words": {"enum": [str(n) for n in range(5_000)]}},
    },
    "many words and many parts": {
        "properties": {"x": {"enum": [str(n) for n in range(5_000)], "allOf": [{"const": "1"} for _ in range(500)]}}
    },
    "an enum of a million": {"properties": {"x": {"enum": [1] * 1_000_000}}},
    "references of a million characters": {"allOf": [{"$ref": "#/" + "%41" * 300_000 + str(n)} for n in range(5)]},
}


@pytest.mark.parametrize("case", LONG)
def test_what_is_long_without_being_an_object_counts_as_well(case: str) -> None:
    """185 kB took 6 seconds within the budget: one enum of 20,000 words, and 500 references to it."""
    with pytest.raises(SchemaTooLarge):
        parameters_of(LONG[case])


def test_steps_count_for_all_tools_together() -> None:
    together = Steps(1000)
    parameters_of(SCHEMA, Steps(within=together))
    with pytest.raises(SchemaTooLarge) as refused:
        all(parameters_of(SCHEMA, Steps(within=together)) for _ in range(1000))
    assert refused.value.budget == 1000


def test_a_long_chain_of_references_is_followed_without_recursion() -> None:
    chain: dict[str, Any] = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(2000)}
    schema = {"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": {**chain, "2000": {"type": "integer"}}}
    assert parameters_of(schema)["x"].names == {"integer"}


def test_a_large_toolset_is_within_the_budget() -> None:
    argument = {"anyOf": [{"type": "string", "enum": ["a"] * 50}, {"type": "null"}], "description": "d" * 100}
    parameters_of({"properties": {f"p{n}": argument.copy() for n in range(1000)}})
