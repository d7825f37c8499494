"""A key stays on its arm; arms get their share; a weight that changes moves the keys that it must, and no others."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing.arms import Split, arm_of

KEYS = [f"user-{number}" for number in range(4000)]


def split(name: str = "test", *, may_fall: bool = True, **weights: float) -> Split:
    return Split(name=name, weights=weights, may_fall=may_fall)


def arms(found: Split, ready: str = "abcd") -> list[str | None]:
    return [arm_of(found, key, set(ready)) for key in KEYS]


def test_arms_get_their_share_of_the_keys() -> None:
    counts = Counter(arms(split(a=70, b=20, c=10)))
    assert sum(counts.values()) == len(KEYS)
    for arm, share in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
        assert counts[arm] / len(KEYS) == pytest.approx(share, abs=0.03)  # four standard deviations


def test_a_key_stays_on_its_arm_in_every_process() -> None:
    assert [arm_of(split(a=1, b=1), key, {"a", "b"}) for key in KEYS[:8]] == list("aaaaaabb")


def test_from_10_to_20_a_tenth_of_the_keys_moves_and_all_to_the_new_arm() -> None:
    moved = Counter(
        (before, after)
        for before, after in zip(arms(split(a=90, b=10)), arms(split(a=80, b=20)), strict=True)
        if before != after
    )
    assert set(moved) == {("a", "b")}
    assert moved["a", "b"] / len(KEYS) == pytest.approx(0.1, abs=0.02)


@settings(derandomize=True, max_examples=30)
@given(weights=st.tuples(*[st.integers(0, 100)] * 3), more=st.integers(1, 100))
def test_a_weight_that_grows_moves_keys_to_its_own_arm_only(weights: tuple[int, int, int], more: int) -> None:
    a, b, c = weights
    for key in KEYS[:300]:
        before, after = (arm_of(split(a=grown, b=b, c=c), key, "abc") for grown in (a, a + more))
        assert before == after or after == "a"


def test_an_arm_of_weight_0_gets_nothing_even_when_it_alone_is_ready() -> None:
    assert set(arms(split(a=0, b=1))) == {"b"}
    assert set(arms(split(a=0, b=1), ready="a")) == {None}
    assert set(arms(split(a=0, b=0))) == {None}
    assert set(arms(split())) == {None}


def test_keys_of_an_arm_without_a_ready_group_fall_to_the_others_in_their_shares_and_come_back() -> None:
    before, during = arms(split(a=50, b=30, c=20)), arms(split(a=50, b=30, c=20), ready="bc")
    assert all(old == new for old, new in zip(before, during, strict=True) if old != "a")
    fallen = Counter(new for old, new in zip(before, during, strict=True) if old == "a")
    assert fallen["b"] / sum(fallen.values()) == pytest.approx(0.6, abs=0.05)


def test_keys_of_an_arm_that_may_not_fall_wait() -> None:
    before, during = (arms(split(may_fall=False, a=1, b=1), ready) for ready in ("ab", "b"))
    assert during == [None if arm == "a" else arm for arm in before]


def test_two_experiments_divide_keys_independently() -> None:
    both = Counter(zip(arms(split("one", a=1, b=1)), arms(split("two", a=1, b=1)), strict=True))
    assert all(count / len(KEYS) == pytest.approx(0.25, abs=0.03) for count in both.values())


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of a in test is"):
        split(a=weight)
