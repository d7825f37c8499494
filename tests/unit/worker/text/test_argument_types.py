"""Argument values: the schema says what is a string; everything else is JSON if it can be."""

import json

import pytest

from glm_worker.server.text.argument_types import ANY, argument_json, argument_types

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "maybe": {"type": ["string", "null"]},
        "unit": {"enum": ["c", "f"]},
        "level": {"enum": [1, "max"]},
        "fixed": {"const": 3},
        "either": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "one": {"oneOf": [{"type": "array"}, {"$ref": "#/$defs/Place"}]},
        "place": {"$ref": "#/$defs/Place"},
        "both": {"allOf": [{"type": ["string", "null"]}, {"type": ["string", "integer"]}]},
        "loop": {"$ref": "#/$defs/Loop"},
        "nowhere": {"$ref": "#/$defs/Missing"},
        "free": {},
        "anything": True,
    },
    "$defs": {"Place": {"type": "object"}, "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}]}},
}


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("text", {"string"}),
        ("count", {"integer"}),
        ("maybe", {"string", "null"}),
        ("unit", {"string"}),
        ("level", {"string", "integer", "number"}),
        ("fixed", {"integer", "number"}),
        ("either", {"string", "number"}),
        ("one", {"array", "object"}),
        ("place", {"object"}),
        ("both", {"string"}),
        ("loop", ANY),
        ("nowhere", ANY),
        ("free", ANY),
        ("anything", ANY),
        ("undeclared", ANY),
    ],
)
def test_types_come_from_the_schema(name: str, types: set[str]) -> None:
    assert argument_types(SCHEMA, name) == types


def test_without_a_schema_anything_is_allowed() -> None:
    assert argument_types(None, "x") == ANY
    assert argument_types({"properties": "nonsense"}, "x") == ANY


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "12", "12"),
        ("text", ' "quoted"\n', ' "quoted"\n'),
        ("count", " 12 ", 12),
        ("count", "twelve", "twelve"),
        ("maybe", "null", None),
        ("maybe", "12", "12"),
        ("either", "12", 12),
        ("either", "twelve", "twelve"),
        ("either", '"twelve"', '"twelve"'),
        ("place", '{"a": [1, 2]}', {"a": [1, 2]}),
        ("place", "{'a': 1}", "{'a': 1}"),
        ("free", "12", 12),
        ("free", "NaN", "NaN"),
        ("free", "Bonn", "Bonn"),
        ("free", "", ""),
        ("free", "[" * 20000, "[" * 20000),
    ],
)
def test_a_value_becomes_what_its_type_says(name: str, text: str, value: object) -> None:
    assert json.loads(argument_json(text, argument_types(SCHEMA, name))) == value


def test_numbers_keep_their_spelling() -> None:
    assert argument_json("1.50", frozenset({"number"})) == "1.50"
    assert argument_json("12345678901234567890123", frozenset({"integer"})) == "12345678901234567890123"
