"""The fleet that never changes and keeps its promises all the same: what autoscaling is compared with. Pure."""

from dataclasses import replace

from glm_operator.autoscale.simulate.law import Fixed
from glm_operator.autoscale.simulate.outcome import Outcome, outcome
from glm_operator.autoscale.simulate.run import Setup, simulate

ENOUGH = 0.97
MOST_GROUPS = 256


def static_fleet(setup: Setup) -> tuple[int, Outcome]:
    """Return the smallest fixed number of groups with >= 97 % attainment, and its outcome.

    Where none up to MOST_GROUPS has it, the largest. The bounds of the deployment do not count.
    """
    low, high = 0, 1
    while high < MOST_GROUPS and not _keeps(setup, high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _keeps(setup, middle):
            high = middle
        else:
            low = middle
    return high, _fixed(setup, high)


def _keeps(setup: Setup, groups: int) -> bool:
    return _fixed(setup, groups).attainment >= ENOUGH


def _fixed(setup: Setup, groups: int) -> Outcome:
    unbounded = {"mode": "Active", "min_groups": 1, "max_groups": None, "gpu_budget": None, "schedules": []}
    free = setup.scaling.model_copy(update=unbounded)
    return outcome(simulate(replace(setup, start_groups=groups, scaling=free), Fixed(groups)))
