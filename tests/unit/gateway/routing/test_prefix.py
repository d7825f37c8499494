"""A prefix is found again as far as prompts are alike, costs little, and tells nobody what others asked."""

from collections import UserDict
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_gateway.routing.prefix import ENDS, MAX_BLOCKS, MAX_VALUES, Prefix, prefix_key, prefix_of

KEY = prefix_key(b"secret", "tenant")
SYSTEM = {"role": "system", "content": "s" * 5000}


def common(one: Prefix, other: Prefix) -> int:
    """Return how many hashes two prompts begin with alike."""
    pairs = enumerate(zip(one.hashes, other.hashes, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one.hashes), len(other.hashes)))


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def test_a_prompt_has_a_hash_for_each_whole_block() -> None:
    for blocks in (1, 2, 16, 17, MAX_BLOCKS):
        whole = "x" * (ENDS[blocks - 1] - 1)  # a text has a mark at its end
        assert len(prefix_of([whole], KEY).hashes) == blocks
        assert len(prefix_of([whole[1:]], KEY).hashes) == blocks - 1
    assert prefix_of([], KEY) == Prefix()


def test_a_prompt_of_220_kb_is_hashed_whole_and_one_without_end_is_not() -> None:
    assert ENDS[-1] > 220_000
    one, other = (prefix_of(["x" * ENDS[-1] + end], KEY) for end in ("y" * 10**6, "z"))
    assert one.hashes == other.hashes
    assert len(one.hashes) == MAX_BLOCKS
    assert one.num_bytes == ENDS[-1] + 10**6 + 1


def test_the_next_turn_begins_with_all_whole_blocks_of_the_turn_before() -> None:
    turns: list[object] = [SYSTEM, user("u" * 700)]
    before = prefix_of([None, turns], KEY)
    after = prefix_of([None, [*turns, {"role": "assistant", "content": "a" * 900}, user("more" * 400)]], KEY)
    # The marks that close the list of turns are in the last block of the turn before, which is not whole.
    assert common(before, after) == len(before.hashes) > 8
    assert len(after.hashes) > len(before.hashes)


def test_prompts_differ_from_the_block_in_which_they_differ() -> None:
    one, other = (prefix_of([[SYSTEM, user(text * 3000)]], KEY) for text in "ab")
    whole = sum(end <= 5000 for end in ENDS)
    assert common(one, other) == whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([user("ab"), user("c")], [user("a"), user("bc")]),
        ([{"role": "user", "content": "x"}], [{"name": "user", "content": "x"}]),
        ([user("x")], [user(["x"])]),
        ([user("1")], [user(1)]),
        ([user(None)], [user("")]),
        ([user([1, 2])], [user([1, 3])]),
        ([[user("x")], user("y")], [[user("x"), user("y")]]),
    ],
)
def test_conversations_that_are_cut_otherwise_are_others(one: list[object], other: list[object]) -> None:
    filler = "f" * 600
    assert prefix_of([one, filler], KEY).hashes != prefix_of([other, filler], KEY).hashes


def test_the_order_of_role_and_content_in_an_object_does_not_matter() -> None:
    turned = {"content": SYSTEM["content"], "role": "system"}
    assert prefix_of([[SYSTEM]], KEY) == prefix_of([[turned]], KEY)


def test_tools_and_calls_of_tools_are_part_of_a_prompt() -> None:
    tools, others = ([{"type": "function", "function": {"name": name}}] for name in "fg")
    assert common(prefix_of([tools, [SYSTEM]], KEY), prefix_of([others, [SYSTEM]], KEY)) == 0
    called, other = (
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": text * 900}}]}
        for text in "ab"
    )
    assert common(prefix_of([[called]], KEY), prefix_of([[other]], KEY)) == 0


def test_a_prompt_of_token_ids_has_four_bytes_an_id() -> None:
    ids = list(range(1000))
    found = prefix_of([ids], KEY)
    assert found.num_bytes == 4001
    assert common(found, prefix_of([[*ids[:500], 7, *ids[501:]]], KEY)) == sum(end <= 2000 for end in ENDS)
    assert prefix_of([[2**40, "x", True]], KEY).hashes == ()


def test_another_tenant_or_another_secret_has_other_hashes() -> None:
    keys = [KEY, prefix_key(b"secret", "other"), prefix_key(b"other", "tenant"), prefix_key(b"", "")]
    assert len({prefix_of([[SYSTEM]], key).hashes for key in keys}) == len(keys)
    assert prefix_key(b"secret", "tenant") == KEY
    assert len(prefix_key(b"s" * 1000, "t" * 1000)) == 32


def test_hashes_have_eight_bytes_and_none_comes_twice() -> None:
    found = prefix_of(["x" * ENDS[-1]], KEY).hashes
    assert all(0 <= each < 2**64 for each in found)
    assert max(found) > 2**56
    assert len(set(found)) == MAX_BLOCKS


def test_what_is_all_brackets_costs_no_more_than_a_bounded_number_of_values() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert prefix_of([deep], KEY).num_bytes <= MAX_VALUES
    assert prefix_of([[{}] * 1_000_000], KEY).num_bytes <= MAX_VALUES
    assert prefix_of([{str(place): [] for place in range(100_000)}], KEY).num_bytes <= 7 * MAX_VALUES


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(derandomize=True)
@given(parts=st.lists(json))
@example(parts=["\ud800"])
@example(parts=[10**5000, -(10**5000)])
@example(parts=[object(), {1: 2}, UserDict(), msgspec.Raw(b"{}"), (1, 2.0)])
def test_no_shape_raises_and_equal_ones_are_equal(parts: list[Any]) -> None:
    found = prefix_of(parts, KEY)
    assert found == prefix_of(parts, KEY)
    assert found.num_bytes >= 0
    assert found.hashes == tuple(sorted(set(found.hashes), key=found.hashes.index))


@settings(derandomize=True)
@given(texts=st.lists(st.text(min_size=1, max_size=2000), max_size=8), more=st.text(max_size=3000))
def test_a_prompt_that_goes_on_keeps_all_hashes_but_of_its_last_block(texts: list[str], more: str) -> None:
    turns = [user(text) for text in texts]
    before, after = prefix_of([turns], KEY), prefix_of([[*turns, user(more)]], KEY)
    # The list's closing mark is one byte: it may fill a block that goes on otherwise.
    assert common(before, after) >= len(before.hashes) - 1
    assert len(after.hashes) >= len(before.hashes)
