"""What a group is believed to hold is what it used last, from the beginning of each prompt, and what has room there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing import holdings as room
from glm_gateway.routing.holdings import MAX_AGE_S, Holdings
from glm_gateway.routing.prefix import ENDS, GRAIN_BYTES, MAX_BLOCKS, Prefix


def a_prefix(*hashes: int) -> Prefix:
    return Prefix(hashes, ENDS[len(hashes) - 1] if hashes else 0)


def test_a_group_knows_what_it_was_sent() -> None:
    held = Holdings(10**6)
    held.use(a_prefix(1, 2, 3), 0.0)
    assert held.known_bytes(a_prefix(1, 2, 3), 0.0) == 3 * GRAIN_BYTES
    assert held.known_bytes(a_prefix(1, 2, 9, 10), 0.0) == 2 * GRAIN_BYTES
    assert held.known_bytes(a_prefix(1, 2, 3, 4, 5), 0.0) == 3 * GRAIN_BYTES
    assert held.known_bytes(a_prefix(9, 2, 3), 0.0) == 0
    assert held.known_bytes(a_prefix(), 0.0) == 0


def test_the_end_of_the_prompt_that_was_used_longest_ago_goes_first() -> None:
    held = Holdings(4 * GRAIN_BYTES)
    held.use(a_prefix(1, 2), 0.0)
    held.use(a_prefix(3, 4), 1.0)
    held.use(a_prefix(5), 2.0)
    assert held.known_bytes(a_prefix(1, 2), 2.0) == GRAIN_BYTES
    assert held.known_bytes(a_prefix(3, 4), 2.0) == 2 * GRAIN_BYTES
    held.use(a_prefix(1), 3.0)
    held.use(a_prefix(6, 7), 4.0)
    assert [held.known_bytes(a_prefix(*each), 4.0) for each in ((1,), (3, 4), (5,), (6, 7))] == [512, 0, 512, 1024]


def test_a_prompt_that_has_no_room_leaves_its_beginning() -> None:
    held = Holdings(3 * GRAIN_BYTES)
    held.use(a_prefix(*range(1, 11)), 0.0)
    assert held.known_bytes(a_prefix(*range(1, 11)), 0.0) == 3 * GRAIN_BYTES


def test_what_was_not_used_for_an_hour_is_not_believed_in_and_goes() -> None:
    held = Holdings(10**6)
    held.use(a_prefix(1, 2), 0.0)
    held.use(a_prefix(1), 10.0)
    assert held.known_bytes(a_prefix(1, 2), MAX_AGE_S) == 2 * GRAIN_BYTES
    assert held.known_bytes(a_prefix(1, 2), MAX_AGE_S + 1.0) == GRAIN_BYTES
    held.use(a_prefix(7), MAX_AGE_S + 11.0)
    assert len(held) == 1


def test_a_smaller_size_holds_from_the_next_use() -> None:
    held = Holdings(10**6)
    held.use(a_prefix(1, 2, 3, 4), 0.0)
    held.resize(2 * GRAIN_BYTES)
    held.use(a_prefix(1), 0.0)
    assert held.known_bytes(a_prefix(1, 2, 3, 4), 0.0) == 2 * GRAIN_BYTES


def test_no_size_makes_it_hold_more_blocks_than_this_process_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_BLOCKS_HELD", 100)
    held = Holdings(float("inf"))
    for first in range(0, 1000, 10):
        held.use(a_prefix(*range(first, first + 10)), float(first))
    assert len(held) == 100
    held.check()


chains = st.lists(st.integers(0, 3), min_size=1, max_size=MAX_BLOCKS)


@settings(derandomize=True)
@given(
    used=st.lists(st.tuples(chains, st.floats(0, 2000)), max_size=20),
    capacity_bytes=st.integers(0, 60 * GRAIN_BYTES),
    asked=chains,
)
def test_sizes_add_up_and_a_prompt_is_known_up_to_some_block(
    used: list[tuple[list[int], float]], capacity_bytes: int, asked: list[int]
) -> None:
    """Prompts are paths in a tree: the hash of a block stands for all before it."""
    held, now = Holdings(capacity_bytes), 0.0
    numbers: dict[tuple[int, ...], int] = {}

    def path(steps: list[int]) -> Prefix:
        hashes = (numbers.setdefault(tuple(steps[: end + 1]), len(numbers)) for end in range(len(steps)))
        return a_prefix(*hashes)

    for steps, later_s in used:
        now += later_s
        held.use(path(steps), now)
        held.check()
        assert held.num_bytes <= capacity_bytes
    prefix = path(asked)
    ends = [ENDS[: place + 1][-1] for place in range(len(asked))]
    one_by_one = [held.known_bytes(Prefix(prefix.hashes[: place + 1]), now) for place in range(len(asked))]
    known = held.known_bytes(prefix, now)
    assert one_by_one == [min(end, known) for end in ends]
