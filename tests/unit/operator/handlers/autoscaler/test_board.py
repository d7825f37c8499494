"""When a status has to say something else: decisions at once, numbers in time, noise never."""

import random
from dataclasses import replace

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.signals import Input, State
from glm_operator.handlers.autoscaler.board import LAG_S, Board
from glm_operator.status.measured import Measured
from unit.operator.measured_builders import NO_SERIES, NOW_S, a_change, a_class, a_decision, measured, value

NAME = ("models", "chat")


class Wakes:
    """A board, and how often it asked for a pass."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, str]] = []
        self.board = Board(self.woken.append, has_prometheus=True)

    def put(self, seen: Measured) -> int:
        """Put a look; return how many passes it asked for."""
        before = len(self.woken)
        self.board.put(NAME, seen)
        return len(self.woken) - before


def test_a_first_look_shows_at_once() -> None:
    wakes = Wakes()
    assert wakes.put(measured()) == 1
    assert wakes.board.shown(*NAME) == measured()


def test_what_somebody_acts_on_shows_at_once() -> None:
    for other in (
        measured(decision=a_decision(3, 2)),
        measured(decision=a_decision(2, 2, limited_by="Max")),
        measured(decision=a_decision(2, 2, least=2, most=9, scheduled=("night",))),
        measured(metrics=NO_SERIES),
        measured(met={"chat": False}),
        measured(changes=(a_change(),)),
        measured(refused=NO_SERIES),
        measured(mode="Observe"),
    ):
        wakes = Wakes()
        wakes.put(measured())
        assert wakes.put(other) == 1, other
        assert wakes.board.shown(*NAME) == other


def test_that_latency_is_measured_shows_at_once_and_that_it_is_not_in_time() -> None:
    idle, unknown = (
        measured(met={}, classes=(a_class(ttft=None, status_latency={"ttft": Input(state)}),))
        for state in (State.IDLE, State.UNKNOWN)
    )
    wakes = Wakes()
    assert [wakes.put(each) for each in (unknown, idle, unknown, idle)] == [1, 1, 0, 0]


def test_noise_of_less_than_a_tenth_never_shows() -> None:
    wakes, noise = Wakes(), random.Random(1)
    wakes.put(measured())
    for look in range(1, 121):  # ten minutes
        factor = 1 + noise.uniform(-0.095, 0.095)
        seen = measured(
            at_s=NOW_S + 5 * look,
            latency={"ttft": value(0.42 * factor, NOW_S + 5 * look), "itl": value(0.031 * factor)},
            classes=(a_class(ttft=0.3 * factor),),
            decision=a_decision(inputs={}, message=f"{factor} groups of work"),
        )
        assert wakes.put(seen) == 0


def test_a_limit_that_comes_and_goes_with_the_load_is_noise() -> None:
    wakes = Wakes()
    wakes.put(measured())
    for look in range(1, 121):
        limit = "DownStabilization" if look % 2 else None
        assert wakes.put(measured(at_s=NOW_S + 5 * look, decision=a_decision(limited_by=limit))) == 0


def test_a_number_that_stays_different_shows_once_a_minute() -> None:
    wakes = Wakes()
    wakes.put(measured())
    changed = [
        look * 5
        for look in range(1, 61)
        if wakes.put(measured(at_s=NOW_S + look * 5, latency={"ttft": value(0.42 * (1 + look)), "itl": value(0.031)}))
    ]
    assert all(later - before >= LAG_S for before, later in zip([0, *changed], changed, strict=False))
    assert len(changed) == 4


def test_attainment_shows_before_a_tenth_of_it_is_lost() -> None:
    wakes = Wakes()
    wakes.put(measured())
    worse = measured(classes=(a_class(attainment=value(0.97)),))
    assert wakes.put(replace(worse, at_s=NOW_S + 5)) == 0
    assert wakes.put(replace(worse, at_s=NOW_S + 5 + LAG_S)) == 1


def test_a_deployment_that_is_gone_leaves_nothing() -> None:
    wakes = Wakes()
    wakes.put(measured())
    wakes.board.drop(NAME)
    assert wakes.board.shown(*NAME) is None
    assert wakes.board.latest == {}


def test_only_those_are_measured_that_ask_or_where_prometheus_is() -> None:
    slo = Slo.model_validate({"classes": [{"name": "chat", "ttft": "1s"}]})
    active, external = (Scaling.model_validate({"mode": mode, "max": 2}) for mode in ("Active", "External"))
    alone, beside = (Board(lambda _: None, has_prometheus=has) for has in (False, True))
    assert beside.is_measured(None, Slo())
    assert not alone.is_measured(None, Slo())
    assert not alone.is_measured(external, Slo())
    assert alone.is_measured(active, Slo())
    assert alone.is_measured(None, slo)
