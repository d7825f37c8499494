"""A server outside that fails is left alone for a while, then asked by one request at a time."""

from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.upstreams.breaker import FAILURES, FIRST_S, LONGEST_S, PROBE_S, Breaker


def failed(times: int = FAILURES, now: float = 0.0) -> Breaker:
    found = Breaker()
    for _ in range(times):
        found.begin(now)
        found.fail(now)
    return found


def test_a_few_failures_are_nothing() -> None:
    assert not failed(FAILURES - 1).is_open(0.0)


def test_it_is_left_alone_then_probed_by_one() -> None:
    found = failed()
    assert found.is_open(FIRST_S / 2)
    assert not found.is_open(FIRST_S)
    found.begin(FIRST_S)
    assert found.is_open(FIRST_S)
    found.succeed()
    assert not found.is_open(FIRST_S)


def test_a_probe_that_fails_makes_it_twice_as_long() -> None:
    found = failed()
    found.begin(FIRST_S)
    found.fail(FIRST_S)
    assert found.is_open(FIRST_S * 2.9)
    assert not found.is_open(FIRST_S * 3)


def test_a_probe_that_says_nothing_is_lost() -> None:
    found = failed()
    found.begin(FIRST_S)
    assert not found.is_open(FIRST_S + PROBE_S)


@given(st.lists(st.tuples(st.sampled_from("bfs"), st.floats(0, 100)), max_size=60))
def test_it_is_never_left_alone_for_longer_than_a_minute_or_a_probe(steps: list[tuple[str, float]]) -> None:
    found, now = Breaker(), 0.0
    for step, pause in steps:
        now += pause
        {"b": lambda: found.begin(now), "f": lambda: found.fail(now), "s": found.succeed}[step]()  # noqa: B023
        assert not found.is_open(now + LONGEST_S + PROBE_S)
