import pytest

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.bounds.limits import bounds_at
from unit.operator.autoscale.law_builders import BEGAN_S, a_scaling, a_situation

MORNING_S = BEGAN_S + 9 * 3600.0


def with_schedules(*schedules: dict[str, object], **given: object) -> Scaling:
    return a_scaling(
        **given,
        schedules=[
            {"name": f"s{place}", "cron": "0 8 * * *", "duration": "2h", **each} for place, each in enumerate(schedules)
        ],
    )


def test_bounds_are_those_of_the_spec_outside_of_schedules() -> None:
    bounds = bounds_at(with_schedules({"min": 5, "max": 30}, min=2, max=8), a_situation(1), BEGAN_S)

    assert (bounds.least, bounds.most, bounds.most_by, bounds.scheduled) == (2, 8, "Max", ())


def test_of_several_open_windows_the_largest_min_and_the_largest_max_count() -> None:
    scaling = with_schedules({"min": 3, "max": 12}, {"min": 5}, {"max": 10}, min=1, max=8)

    bounds = bounds_at(scaling, a_situation(1), MORNING_S)

    assert (bounds.least, bounds.most, bounds.scheduled) == (5, 12, ("s0", "s1", "s2"))


def test_a_window_may_lower_max() -> None:
    assert bounds_at(with_schedules({"max": 2}, max=8), a_situation(1), MORNING_S).most == 2


@pytest.mark.parametrize(("budget", "most"), [(16, 4), (19, 4), (4, 1), (3, 1)])
def test_a_gpu_budget_bounds_the_groups_and_leaves_one(budget: int, most: int) -> None:
    bounds = bounds_at(a_scaling(max=8, gpuBudget=budget, min=2), a_situation(1, gpus_per_group=4), BEGAN_S)

    assert (bounds.least, bounds.most, bounds.most_by) == (min(2, most), most, "GPUBudget")


def test_a_budget_of_gpus_means_nothing_to_groups_without() -> None:
    assert bounds_at(a_scaling(max=8, gpuBudget=1), a_situation(1, gpus_per_group=0), BEGAN_S).most == 8


@pytest.mark.parametrize(
    ("given", "wanted", "current", "expected"),
    [
        ({"namespace_gpus_left": 12}, 9, 2, (3, "NamespaceGPUBudget")),
        ({"namespace_gpus_left": 4}, 9, 2, (2, "NamespaceGPUBudget")),  # it takes away no group that runs
        ({"namespace_gpus_left": -4}, 9, 2, (2, "NamespaceGPUBudget")),
        ({"quota_groups": 5}, 9, 2, (5, "ResourceQuota")),
        ({"quota_groups": 5, "namespace_gpus_left": 8}, 9, 1, (2, "NamespaceGPUBudget")),
        ({"quota_groups": 5}, 4, 2, (4, None)),
        ({"quota_groups": 50}, 90, 2, (20, "Max")),
    ],
)
def test_what_keeps_a_deployment_from_growing_is_named(
    given: dict[str, int], wanted: int, current: int, expected: tuple[int, str | None]
) -> None:
    bounds = bounds_at(a_scaling(), a_situation(current, gpus_per_group=4, **given), BEGAN_S)

    assert bounds.up(wanted, current) == expected


def test_without_max_nothing_of_the_spec_bounds_it() -> None:
    scaling = Scaling.model_validate({"mode": "External"})

    assert bounds_at(scaling, a_situation(1), BEGAN_S).up(500, 1) == (500, None)
