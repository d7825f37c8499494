import pytest

from glm_worker.heartbeat import Phase, SlotView
from glm_worker.supervisor.evidence.watchdog import LONGEST_TICK_S, RankReport, Stopwatch, judge, start_limit_cause

LIMIT_S = 30.0


def a_rank(
    rank: int,
    *,
    still: float = 0.0,
    inside: int | None = None,
    seq: int = 7,
    phase: Phase = Phase.ready,
    state: str = "S",
    done: int = 0,
) -> RankReport:
    """A rank that has stood still that long, inside a collective if inside gives its number."""
    view = SlotView(
        pid=100 + rank,
        phase=phase,
        step=5,
        collective_seq=seq if inside is None else inside,
        in_collective=inside is not None,
        done_bytes=done,
        total_bytes=100,
    )
    return RankReport(rank=rank, view=view, still_s=still, process_state=state)


def hung(*reports: RankReport) -> int | None:
    verdict = judge(list(reports), LIMIT_S)
    return None if verdict is None else verdict.rank


@pytest.mark.parametrize(
    "reports",
    [
        [],
        [a_rank(0), a_rank(1)],
        [a_rank(0, still=29.9), a_rank(1, still=29.9, inside=8)],
        [a_rank(0, still=300, phase=Phase.loading), a_rank(1, still=300, phase=Phase.starting)],
        [a_rank(0, still=5, state="T")],
    ],
    ids=["no ranks", "all fine", "just below the limit", "slow loading", "stopped for a moment"],
)
def test_nobody_is_hung_who_may_stand_still(reports: list[RankReport]) -> None:
    assert hung(*reports) is None


def test_stopped_while_computing_is_named_and_not_who_waits_for_it() -> None:
    assert hung(a_rank(0, still=31, inside=8), a_rank(1, still=30.5, state="T"), a_rank(2, still=31.2, inside=8)) == 1


def test_stopped_while_computing_is_named_even_before_its_own_limit() -> None:
    assert hung(a_rank(0, still=30.0, inside=8), a_rank(1, still=29.4, state="T")) == 1


def test_a_hang_without_a_stop_is_told_by_the_collective_that_it_did_not_enter() -> None:
    assert hung(a_rank(0, still=31, inside=8), a_rank(1, still=30.5, state="R"), a_rank(2, still=31, inside=8)) == 1


def test_stopped_inside_the_collective_of_the_others_is_named_by_its_process_state() -> None:
    assert hung(a_rank(0, still=31, inside=8), a_rank(1, still=30.9, inside=8, state="T")) == 1


def test_stopped_while_idle_is_named() -> None:
    assert hung(a_rank(0, still=0.3), a_rank(1, still=30, state="T")) == 1


def test_rank_0_stopped_is_named_while_its_followers_wait_for_the_next_step() -> None:
    assert hung(a_rank(0, still=30, state="T"), a_rank(1, still=0.2), a_rank(2, still=0.4)) == 0


@pytest.mark.parametrize("state", ["T", "S", "R"])
def test_a_lone_rank_that_stands_still_is_named(state: str) -> None:
    assert hung(a_rank(0, still=30, seq=0, state=state)) == 0


def test_a_deadlocked_idle_rank_is_named_without_a_stop() -> None:
    assert hung(a_rank(0, still=0.2), a_rank(1, still=31)) == 1


def test_a_live_rank_that_left_others_in_a_collective_is_named() -> None:
    assert hung(a_rank(0, still=31, inside=8), a_rank(1, still=0.3)) == 1


def test_stuck_in_an_earlier_collective_is_named_when_all_are_inside_one() -> None:
    assert hung(a_rank(0, still=31, inside=9), a_rank(1, still=32, inside=8), a_rank(2, still=31, inside=9)) == 1


def test_stuck_in_the_kernel_is_named_when_all_are_in_the_same_collective() -> None:
    assert hung(a_rank(0, still=31, inside=8), a_rank(1, still=31, inside=8, state="D")) == 1


def test_stopped_while_loading_is_named_though_slow_loading_is_allowed() -> None:
    reports = [a_rank(0, still=40, phase=Phase.loading), a_rank(1, still=30, phase=Phase.loading, state="T")]
    assert hung(*reports) == 1


def test_the_verdict_says_where_the_rank_stood_and_who_waits() -> None:
    verdict = judge([a_rank(0, still=31, inside=8), a_rank(1, still=30, state="T")], LIMIT_S)
    assert verdict is not None
    assert verdict.message == (
        "rank 1 has stood still for 30.0 s (step 5, outside collective 7, process state T) "
        "while rank 0 waits in collective 8"
    )


def test_a_stopwatch_measures_how_long_a_value_has_not_changed() -> None:
    watch = Stopwatch()
    assert [watch.look(7, 100.0), watch.look(7, 100.25), watch.look(7, 100.5)] == [0.0, 0.25, 0.5]
    assert watch.look(8, 100.75) == 0.0


def test_a_pod_that_was_frozen_as_a_whole_does_not_blame_its_ranks() -> None:
    watch = Stopwatch()
    watch.look(7, 100.0)
    assert watch.look(7, 3700.0) == LONGEST_TICK_S


def test_a_start_that_takes_too_long_names_the_rank_that_has_come_the_least_far() -> None:
    reports = [a_rank(0, phase=Phase.ready), a_rank(1, phase=Phase.loading, done=40), a_rank(2, phase=Phase.ready)]
    cause = start_limit_cause(reports, ranks_per_pod=1, limit_s=60.0)
    assert (cause.rank, cause.pod) == (1, 1)
    assert (
        cause.message == "the generation did not serve within start_limit_s 60: rank 1 is loading, 40 of 100 bytes read"
    )


def test_a_start_that_takes_too_long_before_any_rank_reported_names_none() -> None:
    assert start_limit_cause([], ranks_per_pod=1, limit_s=60.0).rank is None
