"""What of JSON schema is read, what is refused, and that nothing makes the reader slow or makes it fail."""

import json
from random import Random
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.structured.answers import recipe_of
from glm_worker.server.structured.calls import CallTokens
from glm_worker.server.structured.formats import JsonSchema
from glm_worker.server.structured.refused import Invalid, Refused, TooLarge
from glm_worker.server.structured.schemas import keywords
from glm_worker.server.structured.schemas.reading import read_schema
from glm_worker.server.structured.schemas.shapes import (
    Integer,
    List,
    Named,
    Nothing,
    Null,
    Number,
    Object,
    Text,
    Values,
    either,
)
from unit import cpu_time

TOKENS = CallTokens(lambda tag: 1)


def refusal(schema: object) -> RequestRefused:
    with pytest.raises(RequestRefused) as found:
        recipe_of(JsonSchema(schema, "response_format.json_schema.schema"), TOKENS)
    assert found.value.param == "response_format.json_schema.schema"
    return found.value


NOT_KEPT = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "not": {"not": {"type": "string"}},
    "if": {"if": {}, "then": {}},
    "contains": {"type": "array", "contains": {}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "additionalItems": {"type": "array", "additionalItems": False},
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False},
    "$dynamicRef": {"$dynamicRef": "#x"},
    "multipleOf": {"type": "number", "multipleOf": 0.01},
    "maxlength": {"type": "string", "maxlength": 3},
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_a_keyword_that_a_grammar_cannot_keep_is_refused_by_name(name: str) -> None:
    error = refusal({"type": "object", "properties": {"a": NOT_KEPT[name]}})
    assert name in error.message
    assert error.code == "invalid_schema"


def test_every_keyword_is_either_kept_said_to_mean_nothing_or_refused() -> None:
    assert not keywords.KEPT & keywords.SAY_NOTHING
    assert not keywords.REFUSED & (keywords.KEPT | keywords.SAY_NOTHING)


WRONG = {
    "type is 'strin'": {"type": "strin"},
    "type is a text of 17 characters; allowed": {"type": "my name is Zebra7"},
    "the keyword a text of 17 characters is not known": {"my name is Zebra7": 1},
    "format is a text of 100 characters; supported": {"type": "string", "format": "z" * 100},
    "multipleOf is a number of 201 characters; supported": {"type": "integer", "multipleOf": 10**200},
    "a schema must be an object": [],
    "minLength must be a whole number": {"type": "string", "minLength": -1},
    "maximum must be a number": {"type": "integer", "maximum": True},
    "required must be a list of names": {"type": "object", "required": "a"},
    "properties must be an object": {"type": "object", "properties": []},
    "enum must be a list": {"enum": []},
    "anyOf must be a list of schemas": {"anyOf": []},
    "items is a list; use prefixItems": {"type": "array", "items": [{}]},
    "which leads nowhere": {"$ref": "#/$defs/none"},
    "supported are references into the schema": {"$ref": "https://example.com/a.json"},
    "leads back to itself with nothing in between": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}},
    "format is 'phone'; supported": {"type": "string", "format": "phone"},
    "oneOf has options that may hold both": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "no value that ends": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "both the length and the pattern": {"type": "string", "pattern": "^a{5}$", "maxLength": 3},
    "at character 2, a group of this kind": {"type": "string", "pattern": "(?!a)b"},
    "\\b is not supported": {"type": "string", "pattern": "\\bfoo"},
    "minProperties above 1": {"type": "object", "minProperties": 2},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_schema_is_said(message: str) -> None:
    found = refusal(WRONG[message]).message
    assert message.replace("at character 2", "at character 3") in found or message in found


def nested(depth: int) -> Any:
    schema: Any = {}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


BRANCHING = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(32)} | {"d32": {"type": "null"}}
CROSSING: dict[str, Any] = {
    f"d{n}": {
        "anyOf": [{"type": "object", "properties": {f"p{n}x{m}": {"type": "null"}}} for m in range(12)],
        "$ref": f"#/$defs/d{n + 1}",
    }
    for n in range(8)
} | {"d8": {"type": "object"}}
CHAIN = {f"d{n:04}": {"type": "array", "minItems": 1, "items": {"$ref": f"#/$defs/d{n + 1:04}"}} for n in range(1500)}
TOO_LARGE: dict[str, Any] = {
    "deep": nested(40),
    "very deep": nested(5_000),
    "many properties": {"type": "object", "properties": {f"p{n}": {} for n in range(5_000)}},
    "a long enum": {"enum": list(range(1_001))},
    "long names": {"type": "object", "properties": {"x" * 300_000: {}}},
    "many items": {"type": "array", "minItems": 100_000},
    "a long string": {"type": "string", "minLength": 100_000},
    "a long pattern": {"type": "string", "pattern": "a" * 3_000},
    "repeats": {"type": "string", "pattern": "(ab){10001}"},
    "repeats of repeats": {"type": "string", "pattern": "((ab){1000}){1000}"},
    "many things combined": {"$ref": "#/$defs/d0", "$defs": CROSSING},
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_schema_that_may_cost_too_much_is_refused_at_once(name: str) -> None:
    with cpu_time.at_most(1):
        assert refusal(TOO_LARGE[name]).code == "schema_too_large"


def test_references_that_branch_cost_what_they_are_long() -> None:
    with cpu_time.at_most(1):
        assert recipe_of(JsonSchema({"$ref": "#/$defs/d0", "$defs": BRANCHING}, "p"), TOKENS) is not None


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)], ids=["forwards", "backwards"])
def test_a_long_chain_of_references_is_read_or_refused_quickly(order: Any) -> None:
    definitions = CHAIN | {"d1500": {"type": "null"}}
    schema = {"$defs": {name: definitions[name] for name in order(definitions)}, "$ref": "#/$defs/d0000"}
    with cpu_time.at_most(1.5):
        try:
            read_schema(schema)
            recipe_of(JsonSchema(schema, "p"), TOKENS)
        except (Refused, RequestRefused) as error:
            assert "levels deep" in str(error) or "references" in str(error)  # noqa: PT017


READ = {
    "bounds together": (
        {"allOf": [{"type": "integer", "minimum": 3}, {"type": "number", "exclusiveMaximum": 9.5}]},
        Integer(3, 9),
    ),
    "exclusive whole bounds": ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 9}, Integer(4, 8)),
    "a type beside a reference": (
        {"$ref": "#/$defs/a", "minLength": 2, "$defs": {"a": {"type": "string", "maxLength": 5}}},
        Text(2, 5),
    ),
    "values that hold": ({"type": "integer", "enum": [1, "1", True, 2.0, 2.5]}, Values(("1", "2.0"))),
    "no type in common": ({"allOf": [{"type": "string"}, {"type": "null"}]}, Nothing()),
    "both numbers": ({"type": ["integer", "number"]}, Number()),
    "a condition without a type": ({"type": ["string", "null"], "minLength": 2}, either([Text(2), Null()])),
    "a condition on another type": ({"allOf": [{"type": "null"}, {"minLength": 2}]}, Null()),
    "an impossible property": (
        {"allOf": [{"properties": {"a": {"type": "null"}}, "type": "object"}, {"additionalProperties": False}]},
        Object((("a", Nothing()),), others=None),
    ),
    "a short list": ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, List((Null(),), None)),
    "a name": ({"$ref": "#"}, None),
}


@pytest.mark.parametrize("name", [name for name in READ if name != "a name"])
def test_a_schema_is_read_into_what_it_means(name: str) -> None:
    schema, shape = READ[name]
    assert read_schema(schema).root == shape


def test_a_schema_may_lead_back_to_itself_where_something_is_in_between() -> None:
    document = read_schema({"type": "object", "properties": {"next": {"$ref": "#"}}})
    assert isinstance(document.root, Object)
    assert document.root.properties == (("next", Named("r0")),)


def test_no_json_makes_the_reader_fail() -> None:
    random = Random(5)
    words = sorted(keywords.KEPT | keywords.REFUSED | keywords.SAY_NOTHING | {"$id"})
    leaves: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        2.5,
        1e300,
        "",
        "a",
        "#",
        "#/$defs/a",
        "string",
        "object",
        "[",
        [],
        {},
    ]

    def value(depth: int) -> Any:
        kind = random.random()
        if depth == 0 or kind < 0.3:
            return random.choice(leaves)
        if kind < 0.45:
            return [value(depth - 1) for _ in range(random.randint(0, 3))]
        return {random.choice(words): value(depth - 1) for _ in range(random.randint(0, 4))}

    outcomes = {True: 0, False: 0}
    for _ in range(20_000):
        schema = value(4)
        try:
            recipe_of(JsonSchema(schema, "p"), TOKENS)
            outcomes[True] += 1
        except RequestRefused:
            outcomes[False] += 1
        except Exception as error:
            raise AssertionError(json.dumps(schema)) from error
    assert min(outcomes.values()) > 500


def test_the_two_reasons_to_refuse_have_their_own_codes() -> None:
    assert (Invalid.code, TooLarge.code) == ("invalid_schema", "schema_too_large")
