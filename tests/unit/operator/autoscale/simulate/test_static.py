from glm_operator.autoscale.simulate.static import ENOUGH, static_fleet
from unit.operator.autoscale.simulate.simulate_builders import a_setup


def test_the_static_fleet_is_the_smallest_that_keeps_enough_promises() -> None:
    setup = a_setup(rps=20.0, duration_s=200.0)
    groups, found = static_fleet(setup)
    assert groups >= 2
    assert found.attainment >= ENOUGH
    smaller, _ = static_fleet(a_setup(rps=10.0, duration_s=200.0))
    assert smaller < groups


def test_one_group_is_enough_for_little_whatever_min_is() -> None:
    setup = a_setup(rps=0.2)
    bounded = setup.scaling.model_copy(update={"min_groups": 4})
    assert static_fleet(a_setup(rps=0.2, scaling=bounded))[0] == 1


def test_the_static_fleet_is_bound_by_no_gpu_budget() -> None:
    setup = a_setup(rps=20.0, duration_s=200.0)
    bounded = setup.scaling.model_copy(update={"gpu_budget": 1})
    assert static_fleet(a_setup(rps=20.0, duration_s=200.0, scaling=bounded))[0] >= 2
