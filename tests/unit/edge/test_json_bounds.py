"""The bounds of a body, and that the count of what is in it is exact wherever a string ends."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge import json_bounds
from glm_edge.errors.failure import Failure
from glm_edge.json_bounds import JsonBounds, Unfit, check_json, check_size

TEXT = st.text(st.sampled_from('"\\{}[],:a\nü\U0001f600'), max_size=12)
VALUES = st.recursive(
    TEXT | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def refusal(body: bytes, of: JsonBounds = json_bounds.DEFAULT) -> Failure:
    with pytest.raises(Unfit) as caught:
        check_json(body, of)
    return caught.value.failure


def num_containers(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(map(num_containers, inner))


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(depth, inner), default=0)


@given(VALUES, st.booleans(), st.integers(1, 7))
def test_containers_and_depth_are_counted_exactly(value: Any, is_ascii: bool, size: int) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "_SLICE", size)
        check_json(body, JsonBounds(containers=num_containers(value), depth=depth(value)))
        if num_containers(value):
            assert refusal(body, JsonBounds(containers=num_containers(value) - 1)).code == "body_too_complex"
            assert "nested" in refusal(body, JsonBounds(depth=depth(value) - 1)).message


def test_a_million_lists_are_refused_with_their_number() -> None:
    error = refusal(b'{"prompt": [' + b",".join([b"[]"] * 1_000_000) + b"]}")
    assert error.message == "the body has 1000002 objects and lists; allowed are 15000"


def test_strings_and_values_have_bounds_of_their_own() -> None:
    assert "40001 strings" in refusal(b"[" + b",".join([b'""'] * 40_001) + b"]").message
    assert "values" in refusal(b"[" + b",".join([b"1"] * 200_001) + b"]").message


def test_the_key_that_is_there_twice_is_found_among_tens_of_thousands() -> None:
    keys = [b'"k%d": 0' % number for number in range(30_000)]
    assert refusal(b"{" + b", ".join([*keys, b'"k29999": 1']) + b"}").param == "k29999"


def test_a_prompt_as_long_as_the_longest_context_is_within_the_bounds() -> None:
    check_json(json.dumps({"prompt": list(range(131_072))}).encode())


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "a.b", "a.b is there twice in one object"),
        (b'{"model": "a", "model": "b"}', "model", "model is there twice in one object"),
        (b'{"a": ["x", "\\ud83d"]}', "a[1]", "a[1] has half of a surrogate pair, which is no character"),
        (b'{"a": {"\\ude00": 1}}', "a", "a key of a has half of a surrogate pair, which is no character"),
        (b'{"a": [{"b": 1e999}]}', "a[0].b", "a[0].b is a number out of range"),
    ],
)
def test_what_parsers_do_not_agree_about_is_refused_by_its_path(body: bytes, param: str, said: str) -> None:
    error = refusal(body)
    assert (error.param, error.message) == (param, said)
    assert error.code == ("duplicate_key" if "twice" in said else "invalid_value")


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff", b'{"a": "\\ud83d\\ude00"}', b"[]]]]", b'"'])
def test_what_is_no_json_is_left_to_the_parser(body: bytes) -> None:
    check_json(body)


@pytest.mark.parametrize("number", [b"1" * 401, b"-" + b"9" * 401, b"0." + b"1" * 401, b"1e" + b"1" * 401])
def test_a_number_of_too_many_digits_is_refused_unread(number: bytes) -> None:
    error = refusal(b'{"n": ' + number + b"}")
    assert error.message == "the body has a number of more than 400 digits; allowed are 400"
    assert error.code == "body_too_complex"


def test_digits_of_a_text_are_no_number() -> None:
    check_json(b'{"a": "\\"' + b"1" * 5000 + b'", "b": [1]}')
    check_json(b'{"n": ' + b"1" * 300 + b"}")


@given(VALUES, st.booleans())
def test_what_is_let_through_at_a_glance_is_within_the_bounds_when_it_is_counted(value: Any, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    tight = JsonBounds(containers=2, strings=3, values=4, depth=2)
    if json_bounds._is_plainly_small(body, tight):
        json_bounds._check_structure(body, tight)


def test_what_is_only_counted_says_nothing_of_keys() -> None:
    check_size(b'{"a": 1, "a": 2}')


@given(st.binary(max_size=40), st.integers(0, 40), st.binary(max_size=40), st.integers(1, 30))
def test_no_number_of_too_many_digits_is_overlooked(before: bytes, num: int, after: bytes, most: int) -> None:
    text = before + b"7" * num + after
    runs = re.findall(rb"[0-9]+", text)
    has_more = any(len(run) > most for run in runs)
    assert json_bounds._may_have_digits(text, most + 1) or not has_more


@pytest.mark.parametrize("at", [*range(2**18 - 3, 2**18 + 2), 2**19 - 3])
def test_digits_are_found_across_the_parts_of_a_long_text(at: int) -> None:
    text = b"x" * at + b"1234" + b"x" * 2**18
    assert json_bounds._has_digits(text, 4)
    assert not json_bounds._has_digits(text, 5)
