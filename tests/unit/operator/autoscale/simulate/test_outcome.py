from dataclasses import replace

from glm_operator.api.slo import Slo
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Fixed
from glm_operator.autoscale.simulate.outcome import find_breaches, needed_groups, outcome
from glm_operator.autoscale.simulate.run import simulate
from glm_operator.autoscale.simulate.seen.faults import Faults
from glm_operator.autoscale.simulate.seen.scraped import View
from glm_operator.autoscale.simulate.trace import Arrival
from unit.operator.autoscale.simulate.simulate_builders import Told, a_setup

PATIENT = Slo.model_validate({"classes": [{"name": "chat", "ttft": "60s", "itl": "80ms"}]})
OVERLOAD = {"rps": 9.0, "start_groups": 1}


def test_a_fleet_that_is_large_enough_keeps_every_promise() -> None:
    judged = outcome(simulate(a_setup(), Fixed(2)))
    assert (judged.attainment, judged.breaches, judged.gpu_hours) == (1.0, 0, 2 * 600 / 3600)


def test_an_overload_is_one_breach_and_a_law_that_sleeps_never_reacts() -> None:
    result = simulate(a_setup(**OVERLOAD), Fixed(1))
    judged = outcome(result)
    assert judged.attainment < 0.5
    assert judged.breaches == 1
    assert judged.breach_to_decision_s[0] >= 60


def test_the_reaction_is_counted_from_the_breach() -> None:
    ((begun, _),) = find_breaches(simulate(a_setup(**OVERLOAD), Fixed(1)).requests, a_setup(**OVERLOAD))
    law = Told(lambda view, _: 6 if view.now_s >= begun + 20 else 1)
    judged = outcome(simulate(a_setup(**OVERLOAD), law))
    assert 20 <= judged.breach_to_decision_s[0] <= 26


def test_a_scale_down_while_prometheus_is_away_is_counted() -> None:
    law = Told(lambda view, _: 1 if view.now_s > 300 else 2)
    assert outcome(simulate(a_setup(faults=Faults(away=((200.0, 400.0),))), law)).downs_on_missing == 1
    assert outcome(simulate(a_setup(), law)).downs_on_missing == 0


def test_groups_beyond_need_are_counted_while_groups_start() -> None:
    def cascade(view: View, situation: Situation) -> int:
        return situation.spec_groups * 2 if view.now_s > 100 else 2

    judged = outcome(simulate(a_setup(rps=2.0), Told(cascade)))
    assert judged.beyond_need >= 6


def test_what_arrives_needs_more_groups_when_it_grows() -> None:
    needs = [needed_groups(a_setup(rps=rps), 300.0, 60.0) for rps in (1.0, 4.0, 16.0)]
    assert needs == sorted(needs)
    assert needs[0] == 1
    assert needs[2] >= 3


def test_a_burst_is_needed_as_far_as_the_promise_does_not_bridge_it() -> None:
    """Averaged over a minute it was worth fewer groups; with them, its requests waited longer than was promised."""
    steady = tuple(Arrival(float(at_s), 1000, 200) for at_s in range(600))
    burst = tuple(Arrival(300.0 + place / 20.0, 1000, 200) for place in range(300))  # 20 a second for 15 s
    setup = a_setup(arrivals=tuple(sorted((*steady, *burst), key=lambda each: each.at_s)))

    needed = needed_groups(setup, 315.0, 0.0)

    assert needed > needed_groups(replace(setup, slo=PATIENT), 315.0, 0.0)
    assert outcome(simulate(replace(setup, start_groups=needed), Fixed(needed))).attainment == 1.0


def test_direction_changes_are_counted_per_hour() -> None:
    law = Told(lambda view, _: 3 if int(view.now_s // 100) % 2 else 2)
    judged = outcome(simulate(a_setup(), law))
    assert (judged.ups, judged.downs) == (3, 2)
    assert judged.direction_changes_per_hour == 4 * 6
