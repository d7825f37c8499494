"""Argument values: the schema says what is a string; everything else is JSON if it can be."""

import json
import threading
import warnings
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.server.text.argument_json import ArgumentWriter, argument_json, without_cut
from glm_worker.server.text.argument_types import ALL_NAMES, ANYTHING, ArgumentType

NAMES = sorted(ALL_NAMES)


def a_type(*names: str, words: tuple[str, ...] = ()) -> ArgumentType:
    return ArgumentType(frozenset(names), frozenset(words))


@pytest.mark.parametrize(
    ("of", "text", "value"),
    [
        (a_type("string"), "12", "12"),
        (a_type("string"), ' "quoted"\n', ' "quoted"\n'),
        (a_type("integer"), " 12 ", 12),
        (a_type("integer"), "twelve", "twelve"),
        (a_type("integer"), '"42"', 42),
        (a_type("integer"), '" 42 "', 42),
        (a_type("integer"), '"four"', "four"),
        (a_type("integer"), "None", None),
        (a_type("integer"), "1.5", 1.5),
        (a_type("integer"), "9" * 4300, int("9" * 4300)),
        (a_type("integer"), "9" * 4301, "9" * 4301),  # no parser of a client's would take it
        (a_type("number"), "1e400", "1e400"),
        (a_type("object"), '{"a": 1e400}', '{"a": 1e400}'),
        (a_type("boolean"), "True", True),
        (a_type("boolean"), "False\n", False),
        (a_type("boolean"), '"true"', True),
        (a_type("boolean"), '"False"', False),
        (a_type("boolean"), "TRUE", "TRUE"),
        (a_type("null"), "None", None),
        (a_type("array"), '"[1]"', [1]),
        (a_type("object"), '{"a": [1, 2]}', {"a": [1, 2]}),
        (a_type("object"), "{'a': [True, None, 1.5, \"it's\", 'ü']}", {"a": [True, None, 1.5, "it's", "ü"]}),
        (a_type("object"), '{"a": True}', {"a": True}),
        (a_type("object"), "{'a': {1, 2}}", "{'a': {1, 2}}"),
        (a_type("object"), "{1: 2}", "{1: 2}"),
        (a_type("object"), "{'a': b'x'}", "{'a': b'x'}"),
        (a_type("object"), "{'a': 1e999}", "{'a': 1e999}"),
        (a_type("object"), "{'a': '\\d'}", "{'a': '\\d'}"),
        (a_type("object"), "{'a': __import__('os')}", "{'a': __import__('os')}"),
        (a_type("object", "string"), "{'a': 1}", "{'a': 1}"),
        (a_type("array"), "[1, 'a',]", [1, "a"]),
        (a_type("array"), "[" * 5000 + "True", "[" * 5000 + "True"),
        (a_type("array"), "['\\ud83d']", "['\\ud83d']"),
        (a_type("array"), "[" + "True," * 4000 + "]", "[" + "True," * 4000 + "]"),
        (a_type("string", "null"), "null", None),
        (a_type("string", "null"), "None", None),
        (a_type("string", "null"), "12", "12"),
        (a_type("string", "null"), "True", "True"),
        (a_type("string", "boolean"), "None", "None"),
        (a_type("string", "number"), "12", 12),
        (a_type("string", "number"), "twelve", "twelve"),
        (a_type("string", "number"), '"twelve"', '"twelve"'),
        (a_type("string", "integer", words=("2",)), "2", "2"),
        (a_type("string", "integer", words=("2",)), "3", 3),
        (a_type("string", "null", words=("null",)), "null", "null"),
        (ANYTHING, "12", 12),
        (ANYTHING, "NaN", "NaN"),
        (ANYTHING, "Bonn", "Bonn"),
        (ANYTHING, "True", "True"),
        (ANYTHING, "", ""),
        (ANYTHING, "[" * 20000, "[" * 20000),
    ],
)
def test_a_value_becomes_what_its_type_says(of: ArgumentType, text: str, value: Any) -> None:
    assert json.dumps(json.loads(argument_json(text, of))) == json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1+" * 8000 + "1]",
        "[" + "-" * 16000 + "1]",
        "[" + "not " * 4000 + "1]",
        "[" + "1 if 1 else " * 1300 + "1]",
        "['a'" + ".b" * 8000 + "]",
        "[" + "f(" * 8000,
        "{'a':" * 3000 + "1" + "}" * 3000,
        "[" + "9" * 16000 + "]",
        "[" + "lambda:" * 2000 + "1]",
        "[" + "'a' " * 4000,
    ],
)
def test_what_is_no_literal_of_python_is_a_string_however_deep(text: str) -> None:
    assert json.loads(argument_json(text, a_type("array", "object"))) == text


def test_numbers_keep_their_spelling() -> None:
    assert argument_json("1.50", a_type("number")) == "1.50"
    assert argument_json("12345678901234567890123", a_type("integer")) == "12345678901234567890123"


TEXTS = st.lists(
    st.sampled_from(["null", "None", "nul", "True", "true", "12", "-", '"', "[1]", "{", "}", " ", "\n", "2", "a", "é"])
    | st.text(max_size=3),
    max_size=6,
)


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.sets(st.sampled_from(NAMES), min_size=1), st.booleans())
def test_a_value_written_in_parts_is_what_it_is_as_a_whole(parts: list[str], names: set[str], has_word: bool) -> None:
    of = a_type(*names, words=("2",) if has_word else ())
    writer = ArgumentWriter(of)
    assert "".join(map(writer.add, parts)) + writer.close() == argument_json("".join(parts), of)


@pytest.mark.parametrize(
    "of", [a_type("string"), a_type("string", "null"), a_type("string", "object", "null"), ANYTHING]
)
def test_what_can_only_be_a_string_is_passed_on_as_it_comes(of: ArgumentType) -> None:
    """Optional strings are most of the arguments that Python's clients declare."""
    writer = ArgumentWriter(of)
    assert writer.add("once upon") == '"once upon'
    assert writer.add(' "a" time') == ' \\"a\\" time'


@pytest.mark.parametrize("begin", ["nu", " \n", "null", "-", "[1", '"a'])
def test_what_may_be_something_else_is_held(begin: str) -> None:
    assert ArgumentWriter(ANYTHING).add(begin) == ""


def test_reading_python_turns_no_warning_of_another_thread_into_an_error() -> None:
    """Filters of warnings are the whole program's: other requests come in by threads meanwhile."""
    errors: list[Warning] = []
    is_over = threading.Event()

    def other() -> None:
        while not is_over.is_set():
            try:
                warnings.warn("of another request", UserWarning, stacklevel=1)
            except UserWarning as error:
                errors.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=other)
        thread.start()
        try:
            read = {argument_json("[" + "'a', " * 2000 + "]", a_type("array")) for _ in range(50)}
        finally:
            is_over.set()
            thread.join()
    assert read == {json.dumps(["a"] * 2000)}
    assert not errors


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("{", "{}"),
        (' {\n"a" : [1, 2]\n , "b": tru', ' {\n"a" : [1, 2]}'),
        ('{"a": "x", "b": "y', '{"a": "x"}'),
        ('{"a": "x"', '{"a": "x"}'),
        ('{"a": "x", ', '{"a": "x"}'),
        ('{"a": "x", "b', '{"a": "x"}'),
        ('{"a": "x", "b":', '{"a": "x"}'),
        ('{"a": {"b": 1}, "c": {"d": 1', '{"a": {"b": 1}}'),
        ('{"a": "\\', "{}"),
        ('{"a": 1}', None),
        ("", None),
        ("[1", None),
        ("5", None),
        ('{"a": x', None),
        ('{"a": 1 b', None),
        ("{'a': 1", None),
        ('{"a": 1}}', None),
    ],
)
def test_of_an_object_that_was_cut_the_members_that_are_whole_are_left(text: str, left: str | None) -> None:
    assert without_cut(text) == left


VALUES = st.recursive(st.none() | st.booleans() | st.text(max_size=4), partial(st.lists, max_size=3), max_leaves=6)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_every_cut_of_an_object_leaves_a_beginning_of_it(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    for at in range(1, len(text)):
        left = without_cut(text[:at])
        assert left is not None
        kept = json.loads(left)
        assert list(kept.items()) == list(value.items())[: len(kept)]
