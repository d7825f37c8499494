from dataclasses import replace

import pytest

from glm_operator.autoscale.simulate.law import Fixed
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8
from glm_operator.autoscale.simulate.model.capacity import requests_per_second, shape_of
from glm_operator.autoscale.simulate.outcome import outcome
from glm_operator.autoscale.simulate.run import simulate
from glm_operator.autoscale.simulate.trace import Arrival
from unit.operator.autoscale.simulate.simulate_builders import a_setup

SHAPE = shape_of([Arrival(0.0, 1000, 200)])


@pytest.mark.parametrize(("share", "is_kept"), [(0.9, True), (1.2, False)])
def test_a_group_keeps_its_promises_up_to_its_capacity_and_not_beyond(share: float, is_kept: bool) -> None:
    rps = share * requests_per_second(H200_AIR_FP8, SHAPE, 0.08)
    setup = a_setup(600.0, rps, start_groups=1)
    assert (outcome(simulate(setup, Fixed(1))).attainment >= 0.97) == is_kept


def test_a_tighter_gap_leaves_less_capacity() -> None:
    rates = [requests_per_second(H200_AIR_FP8, SHAPE, gap_s) for gap_s in (0.04, 0.06, 0.08, None)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_a_smaller_kv_cache_leaves_less_capacity() -> None:
    small = replace(H200_AIR_FP8, kv_tokens=20_000)
    assert requests_per_second(small, SHAPE, None) < requests_per_second(H200_AIR_FP8, SHAPE, None) / 2
