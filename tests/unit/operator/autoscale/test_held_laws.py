"""Laws of what waits at gateways, for a deployment that always has a group."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.estimate.held import Held
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.signals import Signals
from glm_operator.autoscale.zero.asked import Asked, Gateway, Said
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    GROUPS_PER_RPS,
    NO_SLO,
    PERIOD_S,
    PROMPT,
    Story,
    a_fleet,
    a_scaling,
    a_situation,
    a_slo,
    idle,
    knowing,
    of,
)
from unit.operator.autoscale.test_laws import LOADS, SCALINGS, SITUATIONS, a_load

SLO = a_slo(ttft="2s", itl="100ms")
FULL_RPS = 1.0 / GROUPS_PER_RPS
"""Requests a second that keep a group busy all of its time."""

ANY_NUMBER = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, nan, inf, -inf, 1e308]))
ANY_SAID = st.builds(
    Said,
    held=ANY_NUMBER,
    running=ANY_NUMBER,
    oldest_s=ANY_NUMBER,
    idle_s=st.none() | ANY_NUMBER,
    up_s=ANY_NUMBER,
    held_tokens=st.none() | ANY_NUMBER,
)

HELD = st.builds(
    lambda requests, tokens, oldest_s: (float(requests), float(tokens), oldest_s),
    st.integers(0, 1000),
    st.integers(0, 1_000_000),
    st.floats(0.0, 600.0),
)
"""Requests, their tokens, and the age of the oldest."""

EVEN = HELD.map(lambda held: (held[0], held[0] * PROMPT, held[2]))
"""The same, with prompts of one length."""


def says(requests: float, tokens: float | None, oldest_s: float) -> Said:
    return Said(held=requests, running=1.0, oldest_s=oldest_s, idle_s=0.0, up_s=3600.0, held_tokens=tokens)


def at_gateways(*said: Said | None) -> Asked:
    return Asked(tuple(Gateway(name=f"gw{place}", said=each) for place, each in enumerate(said)))


def before(history: list[tuple[float, float, float]], load: dict[str, float], groups: int, scaling: Scaling) -> Memory:
    """Return a memory after looks, the last a period before BEGAN_S, at which so much waited at a gateway."""
    memory = knowing()
    for place, held in enumerate(history):
        at_s = BEGAN_S - PERIOD_S * (len(history) - place)
        signals = replace(a_load(groups, load, at_s), asked=at_gateways(says(*held)))
        _, memory = decide(scaling, SLO, a_situation(groups), signals, memory, at_s)
    return memory


@settings(max_examples=200, deadline=None)
@given(st.lists(HELD, max_size=4), LOADS, HELD, HELD, SCALINGS, st.integers(1, 12), st.integers(0, 3))
def test_more_that_waits_at_a_gateway_never_asks_for_fewer_groups(
    history: list, load: dict, held: tuple, more: tuple, scaling: Scaling, groups: int, starting: int
) -> None:
    memory = before(history, load, groups, scaling)
    whole = a_load(groups, load)
    larger = tuple(one + other for one, other in zip(held, more, strict=True))
    situation = a_situation(groups + starting, groups)

    few, _ = decide(scaling, SLO, situation, replace(whole, asked=at_gateways(says(*held))), memory, BEGAN_S)
    many, _ = decide(scaling, SLO, situation, replace(whole, asked=at_gateways(says(*larger))), memory, BEGAN_S)

    assert many.wanted >= few.wanted
    assert many.desired >= few.desired


@settings(max_examples=200, deadline=None)
@given(st.lists(HELD, max_size=4), LOADS, HELD, SCALINGS, st.integers(1, 12))
def test_a_gateway_that_falls_silent_moves_nothing(
    history: list, load: dict, held: tuple, scaling: Scaling, groups: int
) -> None:
    """No group goes; and none comes that would not without it."""
    memory = before(history, load, groups, scaling)
    whole, around = a_load(groups, load), a_situation(groups)

    without, _ = decide(scaling, SLO, around, replace(whole, asked=at_gateways(says(*held))), memory, BEGAN_S)
    alone, _ = decide(scaling, SLO, around, replace(whole, asked=at_gateways(says(*held), None)), memory, BEGAN_S)
    nobody, _ = decide(scaling, SLO, around, whole, memory, BEGAN_S)
    silent, _ = decide(scaling, SLO, around, replace(whole, asked=at_gateways(None, None)), memory, BEGAN_S)

    assert alone.wanted >= groups
    assert silent.wanted == max(nobody.wanted, groups)
    if not history:  # else what rises is taken from the looks at which all were heard
        assert alone.wanted == max(without.wanted, groups)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(st.none() | ANY_SAID, max_size=3), SITUATIONS), min_size=1, max_size=5), SCALINGS)
def test_nothing_that_gateways_say_makes_it_raise_or_leave_its_bounds(looks: list, scaling: Scaling) -> None:
    memory = knowing()
    assert scaling.max_groups is not None
    for place, (said, situation) in enumerate(looks):
        at_s = BEGAN_S + PERIOD_S * place
        signals = replace(a_fleet(2, 2.0, at_s), asked=at_gateways(*said))

        decision, memory = decide(scaling, SLO, situation, signals, memory, at_s)

        assert decision.desired <= max(scaling.max_groups, situation.spec_groups)
        assert 0 <= decision.wanted <= 1_000_000 or situation.spec_groups <= 0
        assert decision.message


@settings(max_examples=100, deadline=None)
@given(st.lists(EVEN, max_size=4), LOADS, EVEN, SCALINGS, st.integers(1, 12))
def test_deciding_twice_on_what_gateways_hold_is_deciding_once(
    history: list, load: dict, held: tuple, scaling: Scaling, groups: int
) -> None:
    memory = before(history, load, groups, scaling)
    signals = replace(a_load(groups, load), asked=at_gateways(says(*held)))

    first, after = decide(scaling, SLO, a_situation(groups), signals, memory, BEGAN_S)
    again, _ = decide(scaling, SLO, a_situation(groups), signals, after, BEGAN_S)

    assert again.desired == first.desired


# -- stories


class Front:
    """A gateway that gives groups what they can take, and keeps the rest."""

    def __init__(self, rps: Callable[[Story], float]) -> None:
        self.rps, self.held = rps, 0.0

    def seen(self, story: Story) -> Signals:
        arrived, most = self.rps(story) * PERIOD_S, story.serving * FULL_RPS * PERIOD_S
        taken = min(self.held + arrived, most)
        self.held += arrived - taken
        oldest_s = self.held / (story.serving * FULL_RPS)
        fleet = a_fleet(story.serving, taken / PERIOD_S, story.now_s)
        return replace(fleet, asked=at_gateways(says(self.held, self.held * PROMPT, oldest_s)))


def test_full_groups_without_a_backlog_get_what_waits_at_gateways_in_one_look() -> None:
    story = Story(groups=1, scaling=a_scaling(up={"groups": 20}))
    front = Front(lambda _: 3.0 * FULL_RPS)
    story.run(2 * PERIOD_S, front.seen)
    assert story.groups >= 3, story.moves
    story.run(50.0, front.seen)
    assert story.groups >= 4, "before the first of them serves"
    story.run(1200.0, front.seen)
    assert front.held == 0.0
    assert story.last is not None
    assert "waits at gateways" not in story.last.message


def test_full_groups_that_work_off_what_waits_at_gateways_are_no_reason_for_more() -> None:
    earlier = (Held(BEGAN_S, 400.0, 400.0 * PROMPT),)
    story = Story(groups=4, scaling=a_scaling(up={"groups": 20}), memory=knowing(held=earlier))
    front = Front(lambda _: 0.5 * FULL_RPS)
    front.held = 400.0
    story.run(60.0, front.seen)
    assert front.held == 0.0
    assert max(story.numbers) == 4, story.moves


def test_while_a_gateway_is_silent_no_group_goes_and_then_it_does() -> None:
    story = Story(groups=3)

    def seen(said: Said | None) -> Callable[[Story], Signals]:
        quiet = says(0.0, 0.0, 0.0)
        return lambda story: replace(
            of(*(idle(f"g{place}", story.now_s) for place in range(story.serving))), asked=at_gateways(quiet, said)
        )

    story.run(3600.0, seen(None))
    assert story.moves == []
    assert story.last is not None
    assert (story.last.cause, story.last.limited_by) == ("NoData", "GatewayUnknown")
    assert (
        story.last.message == "gateway gw1 does not say what it is asked, so no group goes; limited by GatewayUnknown"
    )
    story.run(3600.0, seen(says(0.0, 0.0, 0.0)))
    assert story.groups == 1


def test_what_waits_at_gateways_is_told_with_its_units() -> None:
    signals = replace(a_fleet(2, 2.0), asked=at_gateways(says(12.0, 340.0, 1.5)))
    decision, _ = decide(a_scaling(), NO_SLO, a_situation(2), signals, knowing(), BEGAN_S)

    values = {name: found.value for name, found in decision.inputs.items()}  # type: ignore[attr-defined]
    told = {"held at gateways, requests": 12.0, "held at gateways, tokens": 340.0, "oldest held, s": 1.5}
    assert told.items() <= values.items()
    assert "; waits at gateways: 12 requests, 340 tokens" in decision.message
