"""A name's requests go to its arms by their weights; a caller stays on one as long as that can answer."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing.arms import Split
from glm_gateway.routing.config import ArmConfig, NameConfig
from glm_gateway.routing.names import split_of, target_of

KEYS = [f"caller-{number}" for number in range(3000)]
arms = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 5), min_size=1).filter(
    lambda found: any(found.values())
)
some = st.sets(st.sampled_from("abcde"))


def split(*, may_fall: bool = True, **weights: float) -> Split:
    return Split(name="chat", weights=weights, may_fall=may_fall)


def test_a_name_of_the_file_is_a_split() -> None:
    config = NameConfig(name="chat", arms=(ArmConfig(to="a", weight=3), ArmConfig(to="b")), may_fall=False)
    assert split_of(config) == Split(name="chat", weights={"a": 3, "b": 1}, may_fall=False)


def test_an_alias_is_its_one_arm_ready_or_not() -> None:
    assert target_of(split(a=1), "k", ready="", able="a") == "a"


@pytest.mark.parametrize("weights", [{"a": 9, "b": 1}, {"a": 1, "b": 1, "c": 2}])
def test_arms_get_their_shares(weights: dict[str, float]) -> None:
    counts = Counter(target_of(split(**weights), key, ready="abc", able="abc") for key in KEYS)
    whole = sum(weights.values())
    for arm, weight in weights.items():
        assert counts[arm] / len(KEYS) == pytest.approx(weight / whole, abs=0.04)


@settings(max_examples=200)
@given(weights=arms, ready=some, able=some, key=st.text(max_size=5), may_fall=st.booleans())
def test_where_a_key_goes(weights: dict[str, float], ready: set[str], able: set[str], key: str, may_fall: bool) -> None:
    found = split(may_fall=may_fall, **weights)
    own = target_of(found, key, ready=weights, able=weights)
    goes = target_of(found, key, ready=ready, able=able)
    assert own is not None
    assert goes is None or (goes in able and weights[goes] > 0)
    if own in ready and own in able:
        assert goes == own  # whoever else is ready
    if not may_fall:
        assert goes == (own if own in able else None)
    elif any(weights.get(arm, 0) > 0 for arm in ready & able):
        assert goes in ready  # nobody waits while an arm could answer


def test_where_no_arm_is_ready_a_key_waits_for_its_own() -> None:
    found = split(a=1, b=1)
    assert [target_of(found, key, ready="", able="ab") for key in KEYS] == [
        target_of(found, key, ready="ab", able="ab") for key in KEYS
    ]
