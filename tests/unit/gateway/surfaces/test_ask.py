"""Of a body is read what routes and limits need, and nothing in it is refused that a worker would explain better."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.surfaces.ask import MAX_ANSWERS, NoJson, read


def asked(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


def test_a_chat_is_read() -> None:
    turns = [{"role": "user", "content": "hello"}]
    found = read(asked(model="m", stream=True, priority=3, n=2, max_completion_tokens=5, max_tokens=9, messages=turns))
    assert (found.model, found.streams, found.priority, found.num_answers, found.max_tokens) == ("m", True, 3, 2, 5)
    assert found.turns == (turns[0],)
    assert found.head == ()


def test_what_comes_before_the_turns_is_told_apart() -> None:
    body = asked(model="m", tools=[{"name": "f"}], system="be kind", messages=[{"role": "user", "content": "x"}])
    assert read(body).head == (b'[{"name":"f"}]', "be kind")


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"prompt": "text"}, ("text",)),
        ({"prompt": ["a", "b"]}, ("a", "b")),
        ({"input": "text"}, ("text",)),
        ({"input": [{"role": "user"}]}, ({"role": "user"},)),
        ({}, ()),
    ],
)
def test_the_text_of_every_api_is_found(fields: dict[str, Any], turns: tuple[object, ...]) -> None:
    assert read(asked(model="m", **fields)).turns == turns


def test_fields_of_a_wrong_kind_are_as_if_they_were_not_there() -> None:
    found = read(asked(model=5, stream="yes", priority=True, n="many", max_tokens=-1, background=1, messages={"a": 1}))
    assert (found.model, found.streams, found.priority, found.num_answers) == (None, False, None, 1)
    assert (found.max_tokens, found.in_background, found.turns) == (None, False, ({"a": 1},))


def test_many_answers_are_reserved_for_up_to_a_bound() -> None:
    assert read(asked(n=10**9)).num_answers == MAX_ANSWERS
    assert read(asked(n=0)).num_answers == 1


@pytest.mark.parametrize(
    ("prompt", "num"),
    [
        ("one", 1),
        (["one", "two"], 2),
        ([[1, 2], [3], [4]], 3),
        ([1, 2, 3], 1),
        ([], 1),
        ({"a": 1}, 1),
        (["x"] * 500, 500),
    ],
)
def test_each_prompt_of_a_list_has_answers_of_its_own(prompt: Any, num: int) -> None:
    assert read(asked(model="m", prompt=prompt)).num_prompts == num
    assert read(asked(model="m", prompt=prompt, n=2)).num_answers == 2 * num


def test_turns_and_items_are_no_prompts() -> None:
    turns = [{"role": "user", "content": "x"}] * 3
    assert (
        read(asked(model="m", messages=turns)).num_answers == read(asked(model="m", input=["a", "b"])).num_answers == 1
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"5", b"{", b'{"model": "m"} x', b"\xff", b'{"model": "\xff"}', b"[" * 99_999]
)
def test_what_is_no_object_is_no_request(body: bytes) -> None:
    with pytest.raises(NoJson):
        read(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["model", "stream", "priority", "n", "max_tokens", "messages", "prompt", "tools", "system", "x"]
)


@given(st.dictionaries(names, json_values, max_size=6))
def test_a_body_of_any_shape_is_read(fields: dict[str, Any]) -> None:
    body = msgspec.json.encode({name: value for name, value in fields.items() if not _is_huge(value)})
    assert read(body).num_bytes == len(body)


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 2**63
