"""Every answer that a grammar lets end is what the request asked for: random walks over the shipped vocabulary."""

import json
import re
from random import Random
from typing import Any

import jsonschema
import pytest
import xgrammar

from glm_worker.errors import RequestRefused
from glm_worker.server.structured.answers import recipe_of
from glm_worker.server.structured.calls import CallTokens
from glm_worker.server.structured.formats import (
    AnswerFormat,
    AnyText,
    Calls,
    Choice,
    Content,
    Function,
    JsonObject,
    JsonSchema,
    Regex,
)
from glm_worker.server.text.argument_types import parameters_of
from glm_worker.server.text.deltas import assemble
from glm_worker.server.text.lexer import THINK_TAGS, TOOL_TAGS, tag_ids
from glm_worker.server.text.output import OutputReader
from glm_worker.server.text.parsing import Grammar, State
from glm_worker.server.text.stop_words import NO_STOPS
from glm_worker.server.text.tokenizer import Tokenizer
from unit.worker.grammar_walk import NANO, STOPS, call_tokens, compiled, text_of, tokenizer, walk
from unit.worker.schema_maker import make_schema

Json = dict[str, Any]
WEATHER: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "note": {"type": ["string", "null"]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


def grammar_of(answer: AnswerFormat, *, begins_line: bool = True) -> xgrammar.CompiledGrammar:
    recipe = recipe_of(answer, call_tokens(), begins_line=begins_line)
    assert recipe is not None
    return compiled(recipe)


def answers(answer: AnswerFormat, seed: int, number: int = 20) -> list[list[int]]:
    """Return random answers that end, a quarter of those begun at least."""
    grammar, random = grammar_of(answer), Random(seed)
    found = [token_ids for _ in range(number) if (token_ids := walk(grammar, random)) is not None]
    assert len(found) >= number // 4
    return found


def accepts(grammar: xgrammar.CompiledGrammar, text: str) -> bool:
    """Whether a whole text, written in the model's own tokens, is an answer."""
    matcher = xgrammar.GrammarMatcher(grammar)
    token_ids = tokenizer().encode(text, add_special_tokens=False).ids
    return all(map(matcher.accept_token, token_ids)) and matcher.is_completed()


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_of_a_random_schema_validates_or_the_schema_is_refused(seed: int) -> None:
    num_kept = 0
    for number in range(50):
        random = Random(1000 * seed + number)
        schema = make_schema(random)
        try:
            recipe = recipe_of(JsonSchema(schema, "schema"), call_tokens())
        except RequestRefused as refusal:
            assert (refusal.param, refusal.code) == ("schema", "invalid_schema")  # noqa: PT017 - it need not raise
            continue
        assert recipe is not None
        grammar = compiled(recipe)
        for _ in range(2):
            if (token_ids := walk(grammar, random)) is not None:
                value = json.loads(text_of(token_ids))
                jsonschema.Draft202012Validator(schema).validate(value)
                num_kept += 1
    assert num_kept > 75


def test_a_json_object_is_one_on_one_line() -> None:
    for token_ids in answers(JsonObject(), 1):
        text = text_of(token_ids)
        assert isinstance(json.loads(text), dict)
        assert "\n" not in text.strip()


@pytest.mark.parametrize(
    "pattern", [r"a+(b|\d{3})?", r"^(yes|no)$", r"[^\s]{2,5}", r"\w+@\w+\.(com|org)", "né|\\u65e5+", r"\n+[0-9]"]
)
def test_a_pattern_is_matched_as_a_whole(pattern: str) -> None:
    for token_ids in answers(Regex(pattern, "regex"), 2):
        assert re.fullmatch(pattern, text_of(token_ids))


def test_a_choice_is_one_of_its_texts_whatever_is_in_them() -> None:
    options = ("yes", "no way", 'q"/\\', "two\nlines", "né 🙂", "yes indeed", "\nyes", "  ")
    found = {text_of(token_ids) for token_ids in answers(Choice(options, "choice"), 3, 60)}
    assert found <= set(options)
    assert len(found) > 3


def test_an_answer_begins_a_line_only_where_it_may() -> None:
    some = JsonSchema({"const": 1}, "schema")
    assert accepts(grammar_of(some), "\n1")
    assert accepts(grammar_of(some, begins_line=False), "1")
    assert not accepts(grammar_of(some, begins_line=False), "\n1")


@pytest.mark.parametrize("content", [Choice(("yes",), "choice"), Regex("yes", "regex")])
def test_text_of_a_given_form_begins_at_once_and_a_call_beside_it_may_begin_a_line(content: Content) -> None:
    assert accepts(grammar_of(content), "yes")
    assert not accepts(grammar_of(content), "\nyes")
    beside = grammar_of(Calls((Function("f", None, "tools[0]", is_strict=True),), content=content))
    assert accepts(beside, "yes")
    assert not accepts(beside, "\nyes")
    assert accepts(beside, "\n<tool_call>f\n</tool_call>")


@pytest.mark.parametrize(
    "calls",
    [
        Calls((Function("f", WEATHER, "tools[0]"),)),
        Calls(()),
        AnyText(),
    ],
    ids=["auto, not strict", "no functions", "any text"],
)
def test_where_every_text_will_do_nothing_is_compiled(calls: AnswerFormat) -> None:
    assert recipe_of(calls, call_tokens()) is None


LAYOUTS = {
    "GLM-4.5": "\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
    "GLM-4.7": "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key>"
    "<arg_value>3</arg_value></tool_call>",
    "another order": "<tool_call>get_weather<arg_key>days</arg_key><arg_value>3</arg_value><arg_key>city</arg_key>"
    "<arg_value>Paris</arg_value></tool_call>",
    "no arguments": "\n<tool_call>ping\n</tool_call>",
    "two calls": "\n<tool_call>ping\n</tool_call>\n<tool_call>ping\n</tool_call>",
}
NOT_ALLOWED = {
    "a missing argument": "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>",
    "an argument twice": "<tool_call>get_weather<arg_key>days</arg_key><arg_value>3</arg_value><arg_key>days</arg_key>"
    "<arg_value>3</arg_value><arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>",
    "an unknown argument": "<tool_call>ping<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>",
    "an unknown function": "<tool_call>pong</tool_call>",
    "an open call": "<tool_call>ping",
    "text": "I would rather not",
}
FUNCTIONS = (Function("get_weather", WEATHER, "tools[0]", is_strict=True), Function("ping", None, "tools[1]"))


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_required_calls_may_be_laid_out_as_any_glm_does(text: str) -> None:
    assert accepts(grammar_of(Calls(FUNCTIONS, is_required=True)), text)


@pytest.mark.parametrize("text", NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_required_calls_keep_to_the_functions(text: str) -> None:
    assert not accepts(grammar_of(Calls(FUNCTIONS, is_required=True)), text)


def test_one_call_at_most_where_calls_are_not_parallel() -> None:
    grammar = grammar_of(Calls(FUNCTIONS, is_parallel=False))
    assert accepts(grammar, "Well.\n" + LAYOUTS["GLM-4.5"])
    assert accepts(grammar, "Well.")
    assert not accepts(grammar, LAYOUTS["two calls"])


def test_a_named_function_is_called_once_and_no_other() -> None:
    grammar = grammar_of(Calls(FUNCTIONS, named="ping"))
    assert accepts(grammar, LAYOUTS["no arguments"])
    assert not accepts(grammar, LAYOUTS["two calls"])
    assert not accepts(grammar, LAYOUTS["GLM-4.5"])


def test_text_before_the_calls_holds_no_control_token() -> None:
    grammar = grammar_of(Calls(FUNCTIONS))
    assert accepts(grammar, "Let me see." + LAYOUTS["GLM-4.5"])
    for token in ("<think>", "</think>", "<|user|>", "</tool_call>", "<arg_key>", "/nothink"):
        assert not accepts(grammar, f"Let me {token} see.")


def test_the_answer_is_a_call_or_the_content_that_was_asked_for() -> None:
    grammar = grammar_of(Calls(FUNCTIONS, content=JsonSchema({"type": "boolean"}, "response_format")))
    assert accepts(grammar, "\ntrue")
    assert accepts(grammar, LAYOUTS["GLM-4.7"])
    assert not accepts(grammar, "true" + LAYOUTS["GLM-4.7"])


def test_more_arguments_than_may_come_in_any_order_come_in_that_of_the_schema() -> None:
    many = {"type": "object", "properties": {f"a{n}": {"type": "boolean"} for n in range(9)}, "required": ["a8"]}
    grammar = grammar_of(Calls((Function("f", many, "tools[0]", is_strict=True),), is_required=True))
    arguments = [f"<arg_key>a{n}</arg_key><arg_value>true</arg_value>" for n in (0, 3, 8)]
    assert accepts(grammar, f"<tool_call>f{''.join(arguments)}</tool_call>")
    assert not accepts(grammar, f"<tool_call>f{''.join(arguments[::-1])}</tool_call>")


ARGUMENTS: dict[str, Json] = {
    "weather": WEATHER["properties"],
    "mixed": {
        "a": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]},
        "b": {"type": ["string", "array", "null"], "items": {"type": "integer"}},
        "c": {"enum": ["1", 1, "true", None, "x"]},
        "d": {},
        "e": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]},
    },
    "texts": {
        "a": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "b": {"type": "string", "minLength": 2, "maxLength": 4},
        "c": {"type": "string", "format": "date"},
        "d": {"$ref": "#/$defs/word"},
        "e": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize("properties", ARGUMENTS.values(), ids=ARGUMENTS)
def test_the_arguments_of_a_strict_call_validate_as_the_server_reads_them(properties: Json) -> None:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:2],
        "additionalProperties": False,
        "$defs": {"word": {"enum": ["one", "two words"]}},
    }
    calls = Calls((Function("f", schema, "tools[0]", is_strict=True),), is_required=True, is_parallel=False)
    for token_ids in answers(calls, 4, 40):
        jsonschema.validate(read_arguments(token_ids, schema), schema)


def read_arguments(token_ids: list[int], schema: Json) -> object:
    """Return the arguments of the call in an answer, as the server reads it."""
    read = Tokenizer.load(NANO)
    tags = tag_ids(read, THINK_TAGS) | tag_ids(read, TOOL_TAGS)
    reader = OutputReader(
        read,
        tags,
        lambda: Grammar(State.CONTENT, {"f": parameters_of(schema)}),
        stops=NO_STOPS,
        stop_token_ids=tuple(STOPS),
    )
    answer = assemble(reader.feed([*token_ids, 1012], "stop"))
    assert reader.finish_reason == "tool_calls"
    return json.loads(answer.calls[0].arguments)


def strict_call(properties: Json) -> Calls:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return Calls((Function("f", schema, "tools[0]", is_strict=True),), is_required=True, is_parallel=False)


END = "</arg_value><arg_key>"
NOT_CARRIED: dict[str, tuple[Json, str]] = {
    "a literal": (
        {"x": {"enum": ["b", f"a{END}b"]}},
        "'x' cannot have the value in its schema that is a string of 23 characters: ",
    ),
    "a literal of two lines": ({"x": {"const": "</arg_value> \n<arg_key>"}}, "'x' cannot have the value"),
    "a literal inside JSON": ({"x": {"type": "array", "items": {"enum": [END]}}}, "'x' cannot have the value"),
    "a value with a literal": ({"x": {"enum": [{"y": [END]}]}}, "value in its schema that is an object: "),
    "a property": (
        {"x": {"type": "object", "properties": {END: {"type": "null"}}, "required": [END]}},
        "'x' cannot have a property whose name has 21 characters: ",
    ),
    "a pattern": ({"x": {"type": "string", "pattern": f"^a{END}b$"}}, "'x' cannot have this pattern"),
    "a pattern and any text": (
        {"x": {"type": "string", "pattern": "^</arg_value>.*$"}},
        "'x' cannot have this pattern",
    ),
    "a pattern of repeats": ({"x": {"type": "string", "pattern": "^(</?[a-z_]+>\\s?){3,9}$"}}, "this pattern"),
    "a pattern of letters": ({"x": {"type": "string", "pattern": "^[</a-z_>]*$"}}, "this pattern"),
    "a name with a tag": ({"a<arg_value>": {"type": "null"}}, "an argument cannot be called 'a<arg_value>'"),
    "a name with a space": ({" a": {"type": "null"}}, "an argument cannot be called ' a'"),
}


@pytest.mark.parametrize(("properties", "message"), NOT_CARRIED.values(), ids=NOT_CARRIED)
def test_what_a_call_cannot_carry_is_refused_when_strict(properties: Json, message: str) -> None:
    with pytest.raises(RequestRefused, match=re.escape(message)) as refusal:
        recipe_of(strict_call(properties), call_tokens())
    assert (refusal.value.param, refusal.value.code) == ("tools[0]", "invalid_schema")


CARRIED: dict[str, Json] = {
    "other tags": {
        "x": {"enum": ["</arg_value></tool_call>", "</arg_value>\n<tool_call>f", "<arg_key>", "</arg_value>"]}
    },
    "tags in another order": {
        "x": {"enum": ["<arg_key></arg_value>", "</arg_value>x<arg_key>", "</arg_value><arg_ke"]}
    },
    "patterns": {"x": {"type": "string", "pattern": "^(</arg_value>|<arg_key>)$"}, "y": {"enum": ["</arg_value>"]}},
}


@pytest.mark.parametrize("properties", CARRIED.values(), ids=CARRIED)
def test_text_that_only_looks_like_the_end_of_a_value_is_carried(properties: Json) -> None:
    calls = strict_call(properties)
    assert isinstance(calls.functions[0].parameters, dict)
    schema = calls.functions[0].parameters
    for token_ids in answers(calls, 5, 20):
        jsonschema.validate(read_arguments(token_ids, schema), schema)


CALL_OF_ANY = "<tool_call>f\n<arg_key>any name</arg_key>\n<arg_value>[1, 2]</arg_value>\n</tool_call>"


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize(
    ("schema", "is_free"),
    [
        ({"type": "object"}, True),
        ({"type": "object", "additionalProperties": True}, True),
        ({"type": "object", "properties": {}, "additionalProperties": True}, True),
        ({"type": "object", "properties": {}}, False),
        ({"type": "object", "additionalProperties": False}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_function_whose_schema_names_no_arguments_takes_any_unless_it_says_that_it_takes_none(
    schema: Json | None, *, is_free: bool, is_strict: bool
) -> None:
    grammar = grammar_of(Calls((Function("f", schema, "tools[0]", is_strict=is_strict),), is_required=True))
    assert accepts(grammar, "<tool_call>f\n</tool_call>")
    assert accepts(grammar, CALL_OF_ANY) is is_free


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "object", "minProperties": 1}, "whose arguments have no names cannot say how many"),
        ({"type": "object", "properties": {}, "minProperties": 1}, "whose arguments have no names cannot say how many"),
        ({"type": "object", "maxProperties": 2}, "whose arguments have no names cannot say how many"),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, "or what they are called"),
        (
            {"type": "object", "properties": {"x": {}}, "required": ["y"], "additionalProperties": False},
            "no arguments can validate: one that is required can have no value",
        ),
        ({"type": "array"}, "the parameters of a function must be an object"),
    ],
)
def test_what_arguments_must_be_and_cannot_is_refused_when_strict(schema: Json, message: str) -> None:
    def calls(*, is_strict: bool) -> Calls:
        return Calls((Function("f", schema, "tools[0]", is_strict=is_strict),), is_required=True)

    with pytest.raises(RequestRefused, match=message) as caught:
        recipe_of(calls(is_strict=True), call_tokens())
    assert caught.value.param == "tools[0]"
    assert recipe_of(calls(is_strict=False), call_tokens()) is not None


def test_a_function_that_is_not_strict_is_called_even_if_its_schema_cannot_be_kept() -> None:
    node: Json = {"type": "object", "properties": {"next": {"$ref": "#/properties/b"}}}
    schema = {"type": "object", "properties": {"b": node, "a": {"type": "string", "pattern": "^a{9}$", "maxLength": 1}}}
    grammar = grammar_of(Calls((Function("f", schema, "tools[0]"),), is_required=True))
    assert accepts(grammar, "<tool_call>f<arg_key>a</arg_key><arg_value>[1]</arg_value></tool_call>")
    with pytest.raises(RequestRefused, match="both the length and the pattern") as refusal:
        recipe_of(Calls((Function("f", schema, "tools[0].x", is_strict=True),)), call_tokens())
    assert refusal.value.param == "tools[0].x"


def test_calls_need_a_model_that_has_tokens_for_them() -> None:
    with pytest.raises(RequestRefused, match="no tokens for tool calls"):
        recipe_of(Calls(FUNCTIONS, is_required=True), CallTokens(lambda tag: None))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Choice((), "c"), "c: there must be something to choose from"),
        (Choice(("a",) * 1001, "c"), "c: 1001 texts to choose from; at most 1000 are allowed"),
        (Choice(("a" * 70_000,), "c"), "more than 65536 characters together"),
        (Regex("(?=a)b", "r"), "r: a pattern cannot be used: at character 3, a group of this kind"),
        (Regex("((a{1,999}){1,999}){1,9}", "r"), "r: a pattern with its repeats written out has more than"),
        (Calls((), is_required=True), "no function to call is given"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_a_sentence(answer: AnswerFormat, message: str) -> None:
    with pytest.raises(RequestRefused, match=re.escape(message)):
        recipe_of(answer, call_tokens())
