from dataclasses import replace

from glm_operator.autoscale.constants import COLD_START_S
from glm_operator.autoscale.estimate.coldstart import ColdStarts, reported, watched
from unit.operator.autoscale.law_builders import a_group


def look(
    starts: ColdStarts, starting: int, newly: int, now_s: float, *, first: bool = False, moving: bool = False
) -> ColdStarts:
    return watched(starts, starting=starting, newly_serving=newly, now_s=now_s, is_first=first, is_moving=moving)


def test_a_start_lasts_from_the_order_to_serving() -> None:
    starts = look(look(ColdStarts(), 2, 0, 100.0), 1, 1, 145.0)

    assert starts.seen == (45.0,)
    assert starts.remaining(1, 145.0) == [0.0]  # ordered at the same time, so due


def test_groups_that_started_before_we_looked_are_not_measured() -> None:
    starts = look(look(ColdStarts(), 1, 0, 100.0, first=True), 0, 1, 105.0)

    assert starts.seen == ()


def test_a_group_that_a_rollout_restarts_is_not_measured() -> None:
    starts = look(look(ColdStarts(), 1, 0, 100.0, moving=True), 0, 1, 150.0)

    assert starts.seen == ()


def test_a_start_that_was_called_off_is_forgotten() -> None:
    starts = look(look(ColdStarts(), 3, 0, 100.0), 1, 0, 110.0)

    assert len(starts.pending) == 1


def test_before_any_start_a_usual_one_is_assumed() -> None:
    assert ColdStarts().p95_s == COLD_START_S
    assert ColdStarts().remaining(2, 0.0) == [COLD_START_S] * 2


def test_the_longer_of_what_was_seen_and_reported_counts() -> None:
    """What a group reports of its own start leaves out how long its pods waited for a node."""
    starts = reported(ColdStarts(seen=(90.0,)), [a_group(cold_start_s=40.0)])

    assert starts.p95_s == 90.0
    assert replace(starts, seen=()).p95_s == 40.0


def test_few_starts_are_kept() -> None:
    starts = ColdStarts()
    for place in range(100):
        starts = look(look(starts, 1, 0, 1000.0 * place), 0, 1, 1000.0 * place + place + 1.0)
        starts = reported(starts, [a_group(f"g{place}", cold_start_s=1.0 + place)])

    assert len(starts.seen) == len(starts.reported) == 20
    assert starts.p95_s == 99.0
